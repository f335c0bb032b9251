"""Writes crops, so that interrupted work continues where it stopped."""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ember_reid.engine.files import replaced_file
from ember_reid.tools.crops.frames import Frame, FrameSource
from ember_reid.tools.crops.selection import BLURRED, Candidate, sharpness
from PIL import Image
from tqdm import tqdm

QUALITY = 95
OTHER_PLAN = (
    "{} has crops of other frames, tracks or options; choose another folder or give --overwrite"
)
# Seconds; a progress bar appears only for work that takes longer.
TQDM_DELAY = 3


@dataclass(frozen=True)
class Crop:
    """A crop that was written; `path` is relative to the output folder."""

    path: str
    track: str
    frame: int
    time: float | None
    left: int
    top: int
    width: int
    height: int


@dataclass
class _Best:
    """The sharpest candidate of a part so far."""

    sharpness: float
    candidate: Candidate
    time: float | None
    pixels: np.ndarray


class Journal:
    """A file with one line per finished part, which survives a kill.

    Args:
        path: the file.
        plan: describes the work; a journal of other work is refused.

    Raises:
        ValueError: the journal is of other work.
    """

    def __init__(self, path: Path, plan: str) -> None:
        self.done: dict[int, Crop | None] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        # A line without its end was interrupted while it was written.
        complete = path.read_bytes().rpartition(b"\n")[0] if path.is_file() else b""
        lines = complete.decode("utf-8").splitlines()
        if lines and json.loads(lines[0]) != plan:
            raise ValueError(OTHER_PLAN.format(path.parent.parent))
        for line in lines[1:]:
            part, crop = json.loads(line)
            self.done[part] = None if crop is None else Crop(**crop)
        self._file: TextIO = path.open("r+" if lines else "w", encoding="utf-8")
        if lines:
            self._file.truncate(len(complete) + 1)
            self._file.seek(0, os.SEEK_END)
        else:
            self._write(plan)

    def add(self, part: int, crop: Crop | None) -> None:
        """Record a finished part; None if nothing of it passed the filters."""
        self.done[part] = crop
        self._write([part, None if crop is None else asdict(crop)])

    def _write(self, value: Any) -> None:
        self._file.write(json.dumps(value) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def write_crops(
    frames: FrameSource,
    parts: Sequence[Sequence[Candidate]],
    folder: Path,
    prefix: str,
    journal: Journal,
    *,
    min_sharpness: float,
) -> Counter[str]:
    """Write the sharpest candidate of every part that the journal does not contain.

    Args:
        folder: the output folder; file names contain numbers only, no labels of the annotations.
        prefix: folder of the crops in it.
        min_sharpness: see selection.Filters.

    Returns:
        Numbers of dropped boxes by reason.
    """
    numbers = {track: k for k, track in enumerate(dict.fromkeys(p[0].track for p in parts))}
    pending: dict[int, list[tuple[int, Candidate]]] = {}
    last = {}
    for part, candidates in enumerate(parts):
        if part not in journal.done:
            last[part] = candidates[-1].index
            for candidate in candidates:
                pending.setdefault(candidate.index, []).append((part, candidate))
    best: dict[int, _Best] = {}
    total = max(pending, default=-1) + 1
    wanted = frozenset(pending)
    progress = tqdm(
        frames.read(wanted),
        total=total,
        desc=prefix,
        delay=TQDM_DELAY,
        disable=None,
        leave=False,
    )
    for frame in progress:
        if frame is None:
            continue
        finished = [part for part, _ in pending[frame.index] if last[part] == frame.index]
        for part, candidate in pending.pop(frame.index):
            _update(best, part, candidate, frame)
        for part in finished:
            _finish(part, best.pop(part), folder, prefix, numbers, journal, min_sharpness)
    # Parts whose last frames could not be decoded.
    for part in sorted(best):
        _finish(part, best[part], folder, prefix, numbers, journal, min_sharpness)
    dropped = sum(crop is None for crop in journal.done.values())
    return +Counter({BLURRED: dropped})


def _update(best: dict[int, _Best], part: int, candidate: Candidate, frame: Frame) -> None:
    edges = np.s_[candidate.top : candidate.bottom, candidate.left : candidate.right]
    pixels = frame.pixels[edges]
    value = sharpness(pixels)
    if part not in best or value > best[part].sharpness:
        best[part] = _Best(value, candidate, frame.time, pixels.copy())


def _finish(
    part: int,
    best: _Best,
    folder: Path,
    prefix: str,
    numbers: dict[str, int],
    journal: Journal,
    min_sharpness: float,
) -> None:
    """Write the crop of a part, then record it."""
    if best.sharpness < min_sharpness:
        journal.add(part, None)
        return
    candidate = best.candidate
    number = numbers[candidate.track]
    name = f"{prefix}/{number // 1000:04d}/{number:07d}_{candidate.index:08d}.jpg"
    write_image(folder / name, best.pixels)
    journal.add(
        part,
        Crop(
            path=name,
            track="" if candidate.track.startswith("\0") else candidate.track,
            frame=candidate.index,
            time=None if best.time is None else round(best.time, 4),
            left=candidate.left,
            top=candidate.top,
            width=candidate.right - candidate.left,
            height=candidate.bottom - candidate.top,
        ),
    )


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write a JPEG file, which appears when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    write_file(path, buffer.getvalue())


def write_file(path: Path, content: bytes) -> None:
    """Write a file, which appears when it is complete."""
    with replaced_file(path) as draft:
        draft.write_bytes(content)


def format_rows(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """CSV in UTF-8."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")
