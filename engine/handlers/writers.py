"""Writers for the metrics and images of a run."""

import csv
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ember_reid.engine.files import replace_text, replaced_file
from ignite.handlers import TensorboardLogger


class MetricWriter(ABC):
    """Base class: receives metrics and, optionally, images. It is opened after all checks.

    Attributes:
        accepts_images: whether `write_image` does anything; images are drawn only if needed.
    """

    accepts_images = False

    def load(self) -> None:
        """Import libraries; called before `open`."""

    def open(self, *, resumed_iteration: int | None = None) -> None:
        """Open files or connections. A resumed run drops all entries after `resumed_iteration`."""

    @abstractmethod
    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        """Record values. `source` is "train" or "test/<dataset>"."""

    def write_image(self, title: str, iteration: int, image: np.ndarray) -> None:
        """Show an image, uint8 [H, W, 3]."""

    def close(self) -> None:
        """Flush and close; nothing is written afterward."""


class MetricWriters(MetricWriter):
    """Several writers as one; ranks above 0 have none."""

    def __init__(self, writers: Sequence[MetricWriter] = ()):
        self.writers = tuple(writers)

    @property
    def accepts_images(self) -> bool:  # type: ignore[override]
        return any(writer.accepts_images for writer in self.writers)

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

    def write_image(self, title: str, iteration: int, image: np.ndarray) -> None:
        for writer in self.writers:
            writer.write_image(title, iteration, image)

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
        replace_text(self.path, "".join(f"{line}\n" for line in kept))

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


class CsvWriter(MetricWriter):
    """One row per entry in `results.csv`.

    The columns are what, epoch, iteration, and one for each value, in the order in which the values
    first appear. If an entry has a new one, the file is replaced by one with a longer header. A
    cell is empty if the entry does not have the value.
    """

    def __init__(self, path: Path):
        self.path = path
        self._columns = ["what", "epoch", "iteration"]

    def open(self, *, resumed_iteration: int | None = None) -> None:
        if resumed_iteration is None or not self.path.exists():
            return
        rows = self._read()
        # A killed run may leave an incomplete last row.
        kept = [row for row in rows if _number(row.get("iteration")) <= resumed_iteration]
        self._replace(kept)

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        row = {"what": source, "epoch": epoch, "iteration": iteration, **values}
        added = [name for name in values if name not in self._columns]
        if added or not self.path.exists():
            rows = self._read() if self.path.exists() else []
            self._columns += added
            self._replace(rows)
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            self._rows(file).writerow(row)

    def _read(self) -> list[dict[str, str]]:
        text = self.path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
        reader = csv.DictReader(text.splitlines())
        self._columns = list(reader.fieldnames or self._columns)
        return list(reader)

    def _rows(self, file: TextIO) -> "csv.DictWriter[str]":
        return csv.DictWriter(file, self._columns, extrasaction="ignore", lineterminator="\n")

    def _replace(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write the whole file, atomically."""
        with (
            replaced_file(self.path) as draft,
            draft.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = self._rows(file)
            writer.writeheader()
            writer.writerows(rows)


def _number(text: str | None) -> float:
    """A cell as a number; infinity if it is missing or broken."""
    try:
        return float(text or "")
    except ValueError:
        return float("inf")


class TensorBoardWriter(MetricWriter):
    """Curves, images and the configuration for `tensorboard --logdir OUTPUT_DIR`.

    Args:
        config: shown as text.
    """

    accepts_images = True

    def __init__(self, folder: Path, config: Mapping[str, object]):
        self.folder, self.config = folder, config
        self._writer: Any = None
        self._excepthook: Any = None

    def load(self) -> None:
        from torch.utils import tensorboard  # noqa: F401

    def open(self, *, resumed_iteration: int | None = None) -> None:
        self._excepthook, threading.excepthook = threading.excepthook, self._handle_error
        self._writer = TensorboardLogger(str(self.folder), purge_step=resumed_iteration)
        if resumed_iteration is None:
            rows = "".join(f"| {key} | {value} |\n" for key, value in self.config.items())
            self._writer.add_text("configuration", f"| key | value |\n|---|---|\n{rows}", 0)

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{source}/{name}", value, iteration)
        self._writer.flush()

    def write_image(self, title: str, iteration: int, image: np.ndarray) -> None:
        self._writer.add_image(title, image, iteration, dataformats="HWC")

    def _handle_error(self, error: threading.ExceptHookArgs) -> None:
        """Print no traceback of TensorBoard's thread: its next call raises the error again."""
        if not type(error.thread).__module__.startswith("tensorboard."):
            self._excepthook(error)

    def close(self) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            if self._excepthook is not None:
                threading.excepthook = self._excepthook
