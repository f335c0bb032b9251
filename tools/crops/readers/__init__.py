"""Readers of annotation files, one module per format."""

from collections.abc import Callable
from pathlib import Path

from ember_reid.tools.crops.boxes import Annotations
from ember_reid.tools.crops.readers import coco, cvat, label_studio, mot, table, yolo

FORMATS: dict[str, Callable[[Path], Annotations]] = {
    "mot": mot.read,
    "yolo": yolo.read,
    "coco": coco.read,
    "cvat": cvat.read,
    "label-studio": label_studio.read,
    "csv": table.read,
}
_START = 4096


def detect_format(path: Path) -> str:
    """The format of an annotation file, by its suffix and its first characters.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the format is not recognized.
    """
    if path.is_dir():
        return "yolo"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is neither a file nor a folder")
    with path.open("rb") as file:
        start = file.read(_START).decode("utf-8-sig", errors="replace").lstrip()
    if start.startswith("<"):
        return "cvat"
    if start.startswith("["):
        return "label-studio"
    if start.startswith("{"):
        return "coco"
    line = start.partition("\n")[0]
    if "," in line:
        # Only CSV has a header.
        return "mot" if line.strip()[0] in "-.0123456789" else "csv"
    if len(line.split()) in (5, 6, 7):
        return "yolo"
    raise ValueError(
        f"the format of {path} is not recognized; choose one of {', '.join(FORMATS)} with --format"
    )


def read_annotations(path: Path, *, format: str = "auto") -> Annotations:
    """Read an annotation file.

    Args:
        format: auto, or a key of FORMATS.

    Raises:
        FileNotFoundError, ValueError: see the readers.
    """
    return FORMATS[detect_format(path) if format == "auto" else format](path)
