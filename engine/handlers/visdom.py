"""Curves and ranked pictures in Visdom."""

import logging
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import numpy as np

logger = logging.getLogger("ember.train")


class VisdomSink:
    """A sink: one Visdom window per quantity (train loss, learning rate, test mAP, ...) in the environment `env`.

    Without a server that answers, everything goes into `replay_file`; load it later with
    `visdom.Visdom().replay_log(replay_file)`.

    Raises:
        ModuleNotFoundError: visdom is not installed.
    """

    def __init__(self, server: str, port: int, *, env: str, replay_file: Path):
        try:
            import visdom
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "LOG.VISDOM True needs the package visdom: pip install 'setuptools<81' wheel, then "
                "pip install --no-build-isolation visdom 'tornado<6.6'"
            ) from error
        if _answers(server, port):
            self.client = visdom.Visdom(
                server=server, port=port, env=env, use_incoming_socket=False, raise_exceptions=True
            )
            logger.info("Visdom: %s:%d, environment %s", server, port, env)
        else:
            logger.warning(
                "no Visdom server at %s:%d, writing the replay file %s", server, port, replay_file
            )
            self.client = visdom.Visdom(env=env, offline=True, log_to_filename=str(replay_file))
        self._begun: set[str] = set()

    def __call__(self, what: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._append(f"{what}/{name}", iteration, value)

    def _append(self, title: str, iteration: int, value: float) -> None:
        options = {"title": title, "xlabel": "iteration"}
        update = "append" if title in self._begun else None
        self.client.line(
            X=np.array([iteration]), Y=np.array([value]), win=title, update=update, opts=options
        )
        self._begun.add(title)

    def image(self, title: str, picture: np.ndarray) -> None:
        """Show a picture, uint8 [H, W, 3]."""
        self.client.image(picture.transpose(2, 0, 1), win=title, opts={"title": title})


def _answers(server: str, port: int) -> bool:
    host = urlparse(server).hostname or server
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False
