"""People's own images as they name them: files, folders, csv lists."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ember_reid.data.images import IMAGE_SUFFIXES

IDS = ("none", "folder", "prefix")


class ImageFile(NamedTuple):
    """An image; `pid` and `camid` are words, empty when nobody said."""

    path: Path
    pid: str = ""
    camid: str = ""


def read_images(sources: Sequence[str | Path], *, ids: str = "none") -> list[ImageFile]:
    """All images of the sources, in their order, each once; folders are searched through, sorted by path.

    Args:
        sources: image files; folders; csv lists with a column `path` (relative to the list), if known `pid` and `camid`.
        ids: where files and folders say who is shown: none | folder (the name of the folder an image lies in) | prefix
            (its file name up to the first "_", as in Market-1501).

    Raises:
        FileNotFoundError, ValueError: a source that is not there, is no image, or holds none.
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
                f"there is no image in {source} or below; read are {', '.join(IMAGE_SUFFIXES)}"
            )
        return [ImageFile(path, _pid(path, ids)) for path in paths]
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    if source.suffix.lower() == ".csv":
        return _read_csv(source)
    if source.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(
            f"{source} is neither a folder nor a csv list nor an image ({', '.join(IMAGE_SUFFIXES)})"
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
                    f"{path}, line 1: no column path; found: {', '.join(reader.fieldnames) or 'nothing'}"
                )
            images = []
            for line in reader:
                values = {key: (line.get(key) or "").strip() for key in ("path", "pid", "camid")}
                if not values["path"]:
                    raise ValueError(f"{path}, line {reader.line_num}: the column path is empty")
                images.append(
                    ImageFile(path.parent / values["path"], values["pid"], values["camid"])
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a csv list in UTF-8 ({error})") from None
    if not images:
        raise ValueError(f"{path} has no rows")
    return images
