"""Curves and ranked lists in Visdom."""

import logging
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from ember_reid.engine.handlers.writers import MetricWriter
from ignite.handlers import VisdomLogger

logger = logging.getLogger("ember.train")


class VisdomWriter(MetricWriter):
    """One Visdom window per quantity (training loss, learning rate, test mAP, ...).

    If no server can be reached, everything is written to `replay_file`, which
    `visdom.Visdom().replay_log(replay_file)` loads later.

    Args:
        env: the Visdom environment, one per run.
    """

    accepts_images = True

    def __init__(self, server: str, port: int, *, env: str, replay_file: Path):
        self.server, self.port, self.env, self.replay_file = server, port, env, replay_file
        self._client: Any = None
        self._started: set[str] = set()

    def load(self) -> None:
        try:
            import visdom  # noqa: F401
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "it is not installed: pip install 'setuptools<81' wheel, then "
                "pip install --no-build-isolation visdom 'tornado<6.6'"
            ) from error

    def open(self, *, resumed_iteration: int | None = None) -> None:
        if _is_reachable(self.server, self.port):
            self._client = self._connect()
            logger.info("Visdom: %s:%d, environment %s", self.server, self.port, self.env)
        else:
            logger.warning(
                "no Visdom server at %s:%d; writing the replay file %s",
                self.server,
                self.port,
                self.replay_file,
            )
            self._client = self._connect(replay_file=str(self.replay_file))

    def _connect(self, *, replay_file: str | None = None) -> Any:
        """Create the client of ignite's logger, without its own thread.

        The logger itself is not used: its `close` closes all windows of the environment.
        """
        parent = VisdomLogger(
            self.server,
            self.port,
            num_workers=0,
            env=self.env,
            use_incoming_socket=False,
            offline=replay_file is not None,
            log_to_filename=replay_file,
        )
        return parent.vis

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._append(f"{source}/{name}", iteration, value)

    def _append(self, title: str, iteration: int, value: float) -> None:
        self._client.line(
            X=np.array([iteration]),
            Y=np.array([value]),
            win=title,
            update="append" if title in self._started else None,
            opts={"title": title, "xlabel": "iteration"},
        )
        self._started.add(title)

    def write_image(self, title: str, iteration: int, image: np.ndarray) -> None:
        self._client.image(image.transpose(2, 0, 1), win=title, opts={"title": title})


def _is_reachable(server: str, port: int) -> bool:
    host = urlparse(server).hostname or server
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False
