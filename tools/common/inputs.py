"""Parse the inputs of a user: images (files, folders, CSV files) and configuration words."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ember_reid.config import expand_overrides, get_defaults
from ember_reid.config.overrides import SHORT_NAMES
from ember_reid.data.images import IMAGE_SUFFIXES

IDS = ("none", "folder", "prefix")
_COLUMNS = ("path", "pid", "camid", "tracklet", "track")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate configuration words from other words, such as file names.

    Args:
        words: KEY VALUE, KEY=VALUE, short names (weights=FILE) and other words in any order.

    Returns:
        Alternating keys and values, and the other words.

    Raises:
        ValueError: the last key has no value.
    """
    sections = set(get_defaults())
    overrides: list[str] = []
    others: list[str] = []
    remaining = iter(words)
    for word in remaining:
        name, equals, _ = word.partition("=")
        is_key = bool(re.fullmatch(r"[A-Z][A-Z0-9_.]*", name)) and name.split(".")[0] in sections
        if equals and (is_key or name in SHORT_NAMES):
            overrides.append(word)
        elif is_key and not equals and not Path(word).exists():
            overrides += [word, *([value] if (value := next(remaining, None)) is not None else [])]
        else:
            others.append(word)
    return expand_overrides(overrides, testing=True), others


@dataclass(frozen=True)
class ImageFile:
    """An image; `pid`, `camid` and `track` are texts, empty if unknown."""

    path: Path
    pid: str = ""
    camid: str = ""
    track: str = ""


def read_images(sources: Sequence[str | Path], *, ids: str = "none") -> list[ImageFile]:
    """All images of the sources in order, each once; folders are searched recursively.

    Args:
        sources: image files; folders, sorted by path; CSV files with a column `path`, relative to
            the file, and optionally `pid`, `camid`, and `tracklet` or `track`.
        ids: where the identity comes from: none | folder (name of the folder of the image) | prefix
            (file name up to the first "_", as in Market-1501).

    Raises:
        FileNotFoundError, ValueError: a source that does not exist, is not an image, or is empty.
    """
    if ids not in IDS:
        raise ValueError(f"--ids is '{ids}', it must be one of {', '.join(IDS)}")
    found: dict[Path, ImageFile] = {}
    for source in map(Path, sources):
        for image in _read(source, ids):
            found.setdefault(image.path, image)
    return list(found.values())


def _read(source: Path, ids: str) -> list[ImageFile]:
    if source.is_dir():
        paths = sorted(
            p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
        )
        if not paths:
            raise ValueError(
                f"there is no image in {source}; readable are {', '.join(IMAGE_SUFFIXES)}"
            )
        return [ImageFile(path, _pid(path, ids)) for path in paths]
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    if not source.is_file():
        raise ValueError(f"{source} is neither a folder nor a regular file")
    if source.suffix.lower() == ".csv":
        return _read_csv(source)
    if source.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(
            f"{source} is neither a folder nor a CSV file nor an image "
            f"({', '.join(IMAGE_SUFFIXES)})"
        )
    return [ImageFile(source, _pid(source, ids))]


def _pid(path: Path, ids: str) -> str:
    return {"none": "", "folder": path.parent.name, "prefix": path.name.partition("_")[0]}[ids]


def _read_csv(path: Path) -> list[ImageFile]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = [
                (column or "").strip().lower() for column in reader.fieldnames or ()
            ]
            if "path" not in reader.fieldnames:
                raise ValueError(
                    f"{path}, line 1: no column path; found: "
                    f"{', '.join(reader.fieldnames) or 'nothing'}"
                )
            images = []
            for line in reader:
                values = {key: (line.get(key) or "").strip() for key in _COLUMNS}
                if not values["path"]:
                    raise ValueError(f"{path}, line {reader.line_num}: the column path is empty")
                track = values["tracklet"] or values["track"]
                images.append(
                    ImageFile(path.parent / values["path"], values["pid"], values["camid"], track)
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a CSV file in UTF-8 ({error})") from None
    if not images:
        raise ValueError(f"{path} has no rows")
    return images
