"""Boxes as annotation files state them, with limits on what a file may contain."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Larger files and longer lists are refused, since they would exhaust the memory.
MAX_BYTES = 2**30
MAX_BOXES = 10_000_000
MAX_FRAME = 10**9
MAX_LABEL = 100
# What formats write where a box has no track.
NO_TRACK = ("", "-1", "None", "null")


@dataclass(frozen=True, slots=True)
class Box:
    """One box.

    Attributes:
        frame: number of the frame as the file counts; None if the file names images.
        name: name of the image without folders and suffix, or "".
        track: label of the track; "" if the box has none.
        left, top, width, height: in pixels, or fractions of the frame if `relative`.
        label: class of the object, or "".
        visible: share of the object that is not hidden, if the file states it.
    """

    frame: int | None
    name: str
    track: str
    left: float
    top: float
    width: float
    height: float
    label: str = ""
    relative: bool = False
    visible: float = 1.0


@dataclass
class Annotations:
    """The content of an annotation file.

    Attributes:
        source: the file, for messages.
        first_frame: how the file numbers the first frame of a video.
        size: width and height of the frames, if the file states them.
        boxes: in the order of the file.
        num_invalid: boxes that were left out because they have no area or are not finite.
    """

    source: Path
    first_frame: int
    size: tuple[int, int] | None = None
    boxes: list[Box] = field(default_factory=list)
    num_invalid: int = 0

    def add(self, box: Box) -> None:
        """Append a box, or count it as invalid.

        Raises:
            ValueError: the file has too many boxes, or a frame number is out of range.
        """
        if box.frame is not None and not 0 <= box.frame <= MAX_FRAME:
            raise ValueError(f"{self.source}: frame {box.frame} is not in 0..{MAX_FRAME}")
        sides = (box.left, box.top, box.width, box.height)
        if not all(math.isfinite(side) for side in sides) or min(box.width, box.height) <= 0:
            self.num_invalid += 1
            return
        if len(self.boxes) >= MAX_BOXES:
            raise ValueError(f"{self.source} has more than {MAX_BOXES:,} boxes")
        self.boxes.append(box)


def clean_label(value: object) -> str:
    """A label of an annotation file: one line, at most `MAX_LABEL` characters."""
    text = " ".join(str(value).split())[:MAX_LABEL]
    return "" if text in NO_TRACK else text


def image_name(value: object) -> str:
    """The name of an image without folders and suffix; folders in annotations are not used."""
    name = str(value).replace("\\", "/").rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[0] if "." in name else name


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has more than `MAX_BYTES`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes")
    return path.read_bytes()


def read_text(path: Path) -> str:
    """The text of a file in UTF-8. Raises FileNotFoundError and ValueError."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises FileNotFoundError and ValueError."""
    try:
        return json.loads(read_text(path), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def parse_float(value: object, where: str) -> float:
    """A number. Raises ValueError that names the place."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {str(value)[:60]!r} is not a number") from None


def parse_int(value: object, where: str) -> int:
    """A whole number, also written as 7.0. Raises ValueError that names the place."""
    number = parse_float(value, where)
    if not math.isfinite(number) or number != round(number):
        raise ValueError(f"{where}: {str(value)[:60]!r} is not a whole number")
    return round(number)
