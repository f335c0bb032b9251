"""Metric writers: where the numbers and images of a run go."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


class MetricWriter:
    """Base class: receives metrics and, optionally, images. It is opened after all checks.

    Attributes:
        accepts_images: whether `write_image` does anything; images are drawn only if needed.
    """

    accepts_images = False

    def open(self, *, resumed_iteration: int | None = None) -> None:
        """Open files or connections. A resumed run drops all entries after `resumed_iteration`."""

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        """Record values. `source` is "train" or "test/<dataset>"."""
        raise NotImplementedError

    def write_image(self, title: str, image: np.ndarray) -> None:
        """Show an image, uint8 [H, W, 3]."""

    def close(self) -> None:
        """Flush and close; nothing is written afterward."""


class MetricWriters(MetricWriter):
    """Several writers as one. There are none on ranks above 0."""

    def __init__(self, writers: Sequence[MetricWriter] = ()):
        self.writers = tuple(writers)
        self.accepts_images = any(writer.accepts_images for writer in self.writers)

    @contextmanager
    def opened(self, *, resumed_iteration: int | None = None) -> Iterator[None]:
        """Open all writers, and close them on leaving."""
        self.open(resumed_iteration=resumed_iteration)
        try:
            yield
        finally:
            self.close()

    def open(self, *, resumed_iteration: int | None = None) -> None:
        for writer in self.writers:
            writer.open(resumed_iteration=resumed_iteration)

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        for writer in self.writers:
            writer.write(source, epoch, iteration, values)

    def write_image(self, title: str, image: np.ndarray) -> None:
        for writer in self.writers:
            writer.write_image(title, image)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


class JsonLinesWriter(MetricWriter):
    """One JSON object per line in `metrics.jsonl`."""

    def __init__(self, path: Path):
        self.path = path

    def open(self, *, resumed_iteration: int | None = None) -> None:
        if resumed_iteration is None or not self.path.exists():
            return
        kept = [
            line
            for line in self.path.read_text(encoding="utf-8").splitlines()
            if _iteration_of(line) <= resumed_iteration
        ]
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        entry = {"what": source, "epoch": epoch, "iteration": iteration, "values": dict(values)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _iteration_of(line: str) -> float:
    """The iteration of an entry; infinity for an incomplete line, which a killed run may leave."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class TensorBoardWriter(MetricWriter):
    """Curves for `tensorboard --logdir OUTPUT_DIR`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: Any = None

    def open(self, *, resumed_iteration: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=resumed_iteration)

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{source}/{name}", value, iteration)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
