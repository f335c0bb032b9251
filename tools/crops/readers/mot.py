"""MOTChallenge: frame, track, left, top, width, height, confidence, class, visibility."""

from pathlib import Path

from ember_reid.tools.crops.boxes import (
    Annotations,
    Box,
    clean_label,
    parse_float,
    parse_int,
    read_text,
)


def read(path: Path) -> Annotations:
    """Read gt.txt or the result of a tracker; frames count from 1.

    Lines with confidence 0 are left out: ground truth marks objects to ignore in this way.

    Raises:
        FileNotFoundError, ValueError: with the file and the line.
    """
    annotations = Annotations(path, first_frame=1)
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        values = [value.strip() for value in line.split(",")]
        if len(values) < 6:
            raise ValueError(
                f"{where}: {len(values)} values, expected frame, track, left, top, width, height"
            )
        if len(values) > 6 and parse_float(values[6], where) == 0:
            continue
        left, top, width, height = (parse_float(value, where) for value in values[2:6])
        annotations.add(
            Box(
                frame=parse_int(values[0], where),
                name="",
                track=_track(values[1], where),
                left=left,
                top=top,
                width=width,
                height=height,
                label=clean_label(values[7]) if len(values) > 7 else "",
                visible=_visibility(values[8], where) if len(values) == 9 else 1.0,
            )
        )
    return annotations


def _track(value: str, where: str) -> str:
    """7 and 7.0 are the same track."""
    return clean_label(parse_int(value, where))


def _visibility(value: str, where: str) -> float:
    """Ground truth ends with the visibility; results of trackers end with -1."""
    visible = parse_float(value, where)
    return visible if 0 <= visible <= 1 else 1.0
