"""COCO: one JSON file with images, annotations and categories; tracks are `track_id`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ember_reid.tools.crops.boxes import (
    Annotations,
    Box,
    clean_label,
    image_name,
    parse_float,
    parse_int,
    read_json,
)

# Where exporters write the track, in the annotation or in its attributes.
TRACK_KEYS = ("track_id", "instance_id")
FRAME_KEYS = ("frame_id", "frame_index", "frame_number")


def read(path: Path) -> Annotations:
    """Read boxes; frames count from 0 if an image has the number 0, from 1 otherwise.

    Raises:
        FileNotFoundError, ValueError: the file is of another kind, or describes several videos.
    """
    content = read_json(path)
    images = _table(content, "images", path)
    names = {
        entry.get("id"): clean_label(entry.get("name", ""))
        for entry in _table(content, "categories", path, required=False)
    }
    videos = {entry.get("video_id") for entry in images} - {None}
    if len(videos) > 1:
        raise ValueError(f"{path} describes {len(videos)} videos; write one file per video")
    places = {entry.get("id"): _place(entry, path) for entry in images}
    numbers = [frame for frame, _ in places.values() if frame is not None]
    annotations = Annotations(path, first_frame=min([1, *numbers]), size=_size(images, path))
    for position, entry in enumerate(_table(content, "annotations", path)):
        where = f"{path}, annotation {position}"
        if entry.get("image_id") not in places:
            raise ValueError(f"{where}: there is no image {str(entry.get('image_id'))[:60]}")
        frame, name = places[entry["image_id"]]
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"{where}: bbox must be four numbers")
        left, top, width, height = (parse_float(side, where) for side in box)
        label = names.get(entry.get("category_id"), "")
        annotations.add(Box(frame, name, _track(entry), left, top, width, height, label))
    return annotations


def _table(content: Any, key: str, path: Path, *, required: bool = True) -> list[dict[str, Any]]:
    entries = content.get(key, None if required else []) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is not a COCO file: {key} must be a list of objects")
    return entries


def _place(entry: Mapping[str, Any], path: Path) -> tuple[int | None, str]:
    """Frame number and name of an image."""
    found = [entry[key] for key in FRAME_KEYS if entry.get(key) is not None]
    frame = parse_int(found[0], f"{path}, image {str(entry.get('id'))[:60]}") if found else None
    return frame, image_name(entry.get("file_name", ""))


def _track(entry: Mapping[str, Any]) -> str:
    attributes = entry.get("attributes")
    for values in (entry, attributes if isinstance(attributes, dict) else {}):
        for key in TRACK_KEYS:
            if values.get(key) is not None:
                return clean_label(values[key])
    return ""


def _size(images: list[dict[str, Any]], path: Path) -> tuple[int, int] | None:
    """The size of the images if all have the same."""
    sizes = {(entry.get("width"), entry.get("height")) for entry in images}
    width, height = sizes.pop() if len(sizes) == 1 else (None, None)
    if not width or not height:
        return None
    return parse_int(width, str(path)), parse_int(height, str(path))
