"""Label Studio: the JSON export of video tracks (`videorectangle`) and of image rectangles."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ember_reid.tools.crops.boxes import (
    MAX_BOXES,
    Annotations,
    Box,
    clean_label,
    image_name,
    parse_float,
    parse_int,
    read_json,
)

SIDES = ("x", "y", "width", "height")


def read(path: Path) -> Annotations:
    """Read the first annotation of every task; frames count from 1.

    Between two keyframes, boxes of a track are interpolated linearly unless the first of them is
    disabled. The track of a region is the text in its `meta`, or its id.

    Raises:
        FileNotFoundError, ValueError: the file is of another kind.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ValueError(f"{path} is not an export of Label Studio: it must be a list of tasks")
    if sum(_is_video(task) for task in tasks) > 1:
        raise ValueError(f"{path} has several videos; export one task per file")
    annotations = Annotations(path, first_frame=1)
    for number, task in enumerate(tasks):
        where = f"{path}, task {task.get('id', number)}"
        for region in _regions(task):
            for box in _boxes(region, task, where):
                annotations.add(box)
    return annotations


def _regions(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The regions of the first annotation that was not skipped."""
    found = task.get("annotations")
    for annotation in found if isinstance(found, list) else []:
        if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
            regions = annotation.get("result")
            regions = regions if isinstance(regions, list) else []
            return [region for region in regions if isinstance(region, dict)]
    return []


def _is_video(task: Mapping[str, Any]) -> bool:
    return any(region.get("type") == "videorectangle" for region in _regions(task))


def _boxes(region: Mapping[str, Any], task: Mapping[str, Any], where: str) -> Iterator[Box]:
    value = region.get("value")
    if not isinstance(value, dict):
        return
    labels = value.get("labels") or value.get("rectanglelabels") or [""]
    label = clean_label(labels[0] if isinstance(labels, list) else labels)
    if region.get("type") == "videorectangle":
        for frame, sides in _interpolate(value.get("sequence"), where):
            yield _box(frame, "", _track(region, str(region.get("id", ""))), sides, label)
    elif region.get("type") == "rectanglelabels":
        data = task.get("data")
        image = data.get("image", "") if isinstance(data, dict) else ""
        sides = tuple(parse_float(value.get(side), where) for side in SIDES)
        yield _box(None, image_name(image), _track(region, ""), sides, label)


def _box(frame: int | None, name: str, track: str, sides: Sequence[float], label: str) -> Box:
    """Sides are in percent of the frame."""
    left, top, width, height = (side / 100 for side in sides)
    return Box(frame, name, track, left, top, width, height, label, relative=True)


def _track(region: Mapping[str, Any], default: str) -> str:
    meta = region.get("meta")
    text = meta.get("text") if isinstance(meta, dict) else None
    return clean_label(text[0] if isinstance(text, list) and text else text or default)


def _interpolate(sequence: Any, where: str) -> Iterator[tuple[int, tuple[float, ...]]]:
    """(frame, sides) of all frames from the first keyframe to the last one.

    Raises:
        ValueError: keyframes are not numbers, or there are too many frames.
    """
    if not isinstance(sequence, list) or not all(isinstance(key, dict) for key in sequence):
        raise ValueError(f"{where}: a track has no list named sequence")
    keys = sorted(
        (
            parse_int(key.get("frame"), where),
            tuple(parse_float(key.get(side), where) for side in SIDES),
            key.get("enabled", True) is not False,
        )
        for key in sequence
    )
    if keys and keys[-1][0] - keys[0][0] > MAX_BOXES:
        raise ValueError(f"{where}: a track has more than {MAX_BOXES:,} frames")
    for position, (frame, sides, enabled) in enumerate(keys):
        yield frame, sides
        if not enabled or position + 1 == len(keys):
            continue
        next_frame, next_sides, _ = keys[position + 1]
        for between in range(frame + 1, next_frame):
            share = (between - frame) / (next_frame - frame)
            pairs = zip(sides, next_sides, strict=True)
            yield between, tuple(a + share * (b - a) for a, b in pairs)
