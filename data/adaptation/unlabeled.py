"""Unlabeled training images: a folder of crops, a CSV list, or a dataset without its labels.

Letters: N unlabeled images.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ember_reid.data.datasets import read, resolve
from ember_reid.data.datasets.common import list_images_below
from ember_reid.data.images import find_file_problem, show_path
from ember_reid.data.records import NO_PID, Record

PREFIX = "unlabeled:"
NO_TRACK = -1


@dataclass(frozen=True, eq=False)
class Unlabeled:
    """Images without identities.

    Attributes:
        records: N records with the pid `NO_PID`; cameras are numbered from 0.
        tracks: int64 [N]; images of one track show one identity. `NO_TRACK` if none is known.
        has_cameras: whether there are at least two cameras.
    """

    records: tuple[Record, ...]
    tracks: np.ndarray
    has_cameras: bool


@dataclass(frozen=True)
class _Crop:
    """One image; the camera and the track are "" if they are not known."""

    path: Path
    camera: str = ""
    track: str = ""


def test_spec(spec: str) -> str:
    """The dataset whose labels are withheld in `spec`, to be tested on; "" for other images."""
    return spec.removeprefix(PREFIX) if spec.startswith(PREFIX) else ""


def load_unlabeled(specs: Sequence[str], root: Path) -> Unlabeled:
    """Read unlabeled images; those of several sources share no camera and no track.

    Args:
        specs: "unlabeled:NAME" (the training images of a dataset, see `datasets.resolve`),
            "csv:/path/list.csv" or "folder:/path".
        root: where the datasets are.

    Raises:
        ValueError, OSError: one sentence about the first source that cannot be used.
    """
    records: list[Record] = []
    tracks: list[int] = []
    for spec in specs:
        crops = _read(spec, root)
        if not crops:
            raise ValueError(f"DATASETS.UNLABELED: {spec} has no training images")
        first_camid = 1 + max((record.camid for record in records), default=-1)
        cameras = {name: n for n, name in enumerate(sorted({crop.camera for crop in crops}))}
        known = sorted({(crop.camera, crop.track) for crop in crops if crop.track})
        first_track = 1 + max(tracks, default=NO_TRACK)
        numbers = {track: first_track + n for n, track in enumerate(known)}
        for crop in crops:
            records.append(Record((crop.path,), NO_PID, first_camid + cameras[crop.camera]))
            tracks.append(numbers.get((crop.camera, crop.track), NO_TRACK))
    has_cameras = len({record.camid for record in records}) > len(specs)
    return Unlabeled(tuple(records), np.array(tracks, np.int64), has_cameras)


def _read(spec: str, root: Path) -> list[_Crop]:
    """The images of one source, in a fixed order."""
    kind, _, place = spec.partition(":")
    if spec.startswith(PREFIX):
        train = read(resolve(test_spec(spec), root)).train
        return [_Crop(path, str(record.camid)) for record in train for path in record.paths]
    if kind == "csv" and place:
        return _read_csv(Path(place).expanduser())
    if kind == "folder" and place:
        return _read_folder(Path(place).expanduser())
    raise ValueError(
        f'DATASETS.UNLABELED has "{spec[:80]}"; allowed: unlabeled:NAME (a labeled dataset whose '
        "labels are not used), csv:/path/list.csv, or folder:/path"
    )


def _read_folder(root: Path) -> list[_Crop]:
    """All images below a folder. Folders directly in it are cameras, if it has no loose images."""
    if not root.is_dir():
        raise FileNotFoundError(f"DATASETS.UNLABELED: {show_path(root)} is not a folder")
    images = list_images_below(root)
    is_loose = any(image.parent == root for image in images)
    return [_Crop(path, "" if is_loose else path.relative_to(root).parts[0]) for path in images]


def _read_csv(path: Path) -> list[_Crop]:
    """The rows of a list with the columns path and, if known, camid, track and split.

    Only rows of the split train are used if there is a column split. Other columns, such as pid,
    are ignored. A track belongs to one camera.
    """
    problem = find_file_problem(path, may_be_empty=True)
    if problem:
        raise FileNotFoundError(f"DATASETS.UNLABELED: the list {show_path(path)} {problem}")
    crops = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [(column or "").strip().lower() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            if "path" not in columns:
                found = ", ".join(columns)[:200] or "nothing"
                raise ValueError(f"{path}, line 1: no column path; found: {found}")
            for line in reader:
                row = {key: (line.get(key) or "").strip() for key in columns}
                if row.get("split", "train").lower() != "train":
                    continue
                image = path.parent / row["path"]
                problem = find_file_problem(image, may_be_empty=True) if row["path"] else "is empty"
                if problem:
                    raise FileNotFoundError(
                        f"{path}, line {reader.line_num}: the image {show_path(image)} {problem}"
                    )
                crops.append(_Crop(image, row.get("camid", ""), row.get("track", "")))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a CSV list in UTF-8 ({error})") from None
    return crops


def check_no_shared_files(labeled: Sequence[Record], unlabeled: Sequence[Record]) -> None:
    """Raise ValueError if an unlabeled image is also a labeled training image."""
    known = {path.resolve() for record in labeled for path in record.paths}
    shared = [path for record in unlabeled for path in record.paths if path.resolve() in known]
    if shared:
        raise ValueError(
            f"{len(shared)} of the images of DATASETS.UNLABELED are also in DATASETS.NAMES, the "
            f"first one is {show_path(shared[0])}; an image must be in one of them"
        )
