"""CSV: a header, then one box per line."""

import csv
from collections.abc import Mapping
from pathlib import Path

from ember_reid.tools.crops.boxes import (
    Annotations,
    Box,
    clean_label,
    image_name,
    parse_float,
    parse_int,
    read_text,
)

# Column: its other names.
COLUMNS = {
    "frame": ("frame", "frame_id", "frame_index"),
    "image": ("image", "file", "filename", "file_name", "path"),
    "track": ("track", "track_id", "id", "identity", "pid"),
    "left": ("left", "x", "x1", "xmin", "bb_left"),
    "top": ("top", "y", "y1", "ymin", "bb_top"),
    "width": ("width", "w", "bb_width"),
    "height": ("height", "h", "bb_height"),
    "right": ("right", "x2", "xmax"),
    "bottom": ("bottom", "y2", "ymax"),
    "label": ("label", "class"),
}


def read(path: Path) -> Annotations:
    """Read the columns frame or image, track, left, top, and width, height or right, bottom.

    Frames count from 0.

    Raises:
        FileNotFoundError, ValueError: with the file and the line.
    """
    annotations = Annotations(path, first_frame=0)
    reader = csv.DictReader(read_text(path).splitlines(), skipinitialspace=True)
    try:
        found = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
        columns = {
            column: next((found[name] for name in names if name in found), "")
            for column, names in COLUMNS.items()
        }
        _check(columns, path)
        for line in reader:
            values = {name: (line.get(key) or "").strip() for name, key in columns.items() if key}
            annotations.add(_parse(values, f"{path}, line {reader.line_num}"))
    except csv.Error as error:
        raise ValueError(f"{path} is not CSV ({error})") from None
    return annotations


def _check(columns: Mapping[str, str], path: Path) -> None:
    required = [("frame", "image"), ("left",), ("top",), ("width", "right"), ("height", "bottom")]
    for names in required:
        if not any(columns[name] for name in names):
            raise ValueError(
                f"{path}, line 1: no column {' or '.join(names)}; the first line must name the "
                "columns frame (or image), track, left, top, width and height"
            )


def _parse(values: Mapping[str, str], where: str) -> Box:
    left, top = (parse_float(values[side], where) for side in ("left", "top"))
    frame = values.get("frame", "")
    width, height = (
        parse_float(values[side], where)
        if side in values
        else parse_float(values[other], where) - start
        for side, other, start in (("width", "right", left), ("height", "bottom", top))
    )
    return Box(
        frame=parse_int(frame, where) if frame else None,
        name=image_name(values.get("image", "")),
        track=clean_label(values.get("track", "")),
        left=left,
        top=top,
        width=width,
        height=height,
        label=clean_label(values.get("label", "")),
    )
