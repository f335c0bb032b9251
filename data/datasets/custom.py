"""Your own data: a CSV list, or folders."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ember_reid.data.datasets.common import find_root, finish, list_images, logger
from ember_reid.data.images import find_file_problem, show_path
from ember_reid.data.records import ALL, CROSS_CAMERA, JUNK, SUBSETS, Record, Splits

_CANONICAL_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_COLUMNS = ("path", "pid", "camid", "split", "tracklet")
_REQUIRED = ("path", "pid", "split")


@dataclass(frozen=True, slots=True)
class _Row:
    """One image.

    Attributes:
        where: file and line, for messages.
        path: the image.
        pid, camid: labels as they are written; "" if there is no camera.
        split: train, query or gallery.
        tracklet: a label, or "" for a single image.
    """

    where: str
    path: Path
    pid: str
    camid: str
    split: str
    tracklet: str = ""


def load_csv(path: Path) -> Splits:
    """Read a list with the columns path, pid, split and, if known, camid, in any order.

    Paths are relative to the folder of the list. The split is train, query or gallery; the gallery
    may have pid -1 for images to ignore. Consecutive lines with the same value in an optional
    column `tracklet` are the frames of one tracklet. Other columns are ignored. Identities and
    cameras are numbers or text, see `number_labels`.

    Raises:
        FileNotFoundError, ValueError: with the file and the line.
    """
    path = Path(path)
    problem = find_file_problem(path, may_be_empty=True)
    if problem:
        raise FileNotFoundError(f"csv: the list {show_path(path)} {problem}")
    return _finish(path.stem, path, _read_rows(path), missing_cameras="has no camera labels")


def load_folder(path: Path) -> Splits:
    """Read folders split/identity/image; the split is train, query or gallery.

    The camera is a folder between identity and image, split/identity/camera/image, for all images
    or for none. The identity folder "-1" in the gallery holds images to ignore.

    Raises:
        FileNotFoundError: if there are no images.
        ValueError: if an image is not in the folder of an identity.
    """
    root = find_root(Path(path), needed=SUBSETS, name="folder")
    rows: list[_Row] = []
    for split in SUBSETS:
        folder = root / split
        loose = list_images(folder)
        if loose:
            raise ValueError(
                f"folder: {show_path(loose[0])} is in {split}/ itself; expected"
                f" {split}/IDENTITY/{show_path(Path(loose[0].name))}"
            )
        for identity in _subfolders(folder):
            rows.extend(_folder_rows(identity, split))
    if not rows:
        raise FileNotFoundError(f"folder: no images in {root}; expected train/IDENTITY/*.jpg")
    return _finish(root.resolve().name, root, rows, missing_cameras="has no camera folders")


def _finish(name: str, path: Path, rows: Sequence[_Row], *, missing_cameras: str) -> Splits:
    """Turn rows into splits, with warnings about cameras and identities."""
    pids = number_labels([row.pid for row in rows], keep_integers=True)
    _warn_lookalikes(path, "identities", pids)
    camids = number_labels([row.camid for row in rows if row.camid], keep_integers=False)
    _warn_lookalikes(path, "cameras", camids)
    for row in rows:
        if camids and not row.camid:
            raise ValueError(
                f"{row.where}: no camid, but other lines have one; give all lines one, or none"
            )
    records = _to_records(rows, pids, camids)
    if not camids:
        logger.warning(
            '%s: %s; protocol "%s": every gallery image counts', path, missing_cameras, ALL
        )
    _warn_shared_pids(rows, path)
    return finish(
        _clean_name(name),
        path,
        train=records["train"],
        query=records["query"],
        gallery=records["gallery"],
        protocol=CROSS_CAMERA if camids else ALL,
        labels={number: label for label, number in pids.items()},
    )


def _clean_name(name: str) -> str:
    """A name for use in file names: not "..", without separators and control characters."""
    return re.sub(r"[^\w@.+ -]", "_", name)[:100].strip(". ") or "data"


def _read_rows(path: Path) -> list[_Row]:
    """Read the rows in file order. Raises FileNotFoundError and ValueError."""
    rows = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [(column or "").strip().lower() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            missing = [column for column in _REQUIRED if column not in columns]
            if missing:
                found = ", ".join(columns)[:200] or "nothing"
                raise ValueError(
                    f"{path}, line 1: no column {', '.join(missing)}; the first line must name the"
                    f" columns path, pid, camid (optional), split; found: {found}"
                )
            for line in reader:
                values = {key: (line.get(key) or "").strip() for key in _COLUMNS}
                rows.append(_parse_row(values, f"{path}, line {reader.line_num}", path.parent))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a CSV list in UTF-8 ({error})") from None
    if not rows:
        raise ValueError(f"{path} has no rows")
    _check_paths(rows)
    return rows


def _check_paths(rows: Sequence[_Row]) -> None:
    """Raise FileNotFoundError if the file of a row is missing or special."""
    problems = [
        (row, problem)
        for row in rows
        if (problem := find_file_problem(row.path, may_be_empty=True))
    ]
    if problems:
        row, problem = problems[0]
        more = f" ({len(problems) - 1} more files are unusable)" if len(problems) > 1 else ""
        raise FileNotFoundError(f"{row.where}: the image {show_path(row.path)} {problem}{more}")


def _parse_row(values: dict[str, str], where: str, folder: Path) -> _Row:
    for key in _REQUIRED:
        if not values[key]:
            raise ValueError(f"{where}: the column {key} is empty")
    split = values["split"].lower()
    if split not in SUBSETS:
        raise ValueError(
            f'{where}: the split is "{values["split"][:60]}"; it must be {", ".join(SUBSETS)}'
        )
    if values["pid"] == str(JUNK) and split != "gallery":
        raise ValueError(
            f"{where}: pid -1 marks gallery images to ignore; it is not allowed in {split}"
        )
    path = folder / values["path"]
    return _Row(where, path, values["pid"], values["camid"], split, values["tracklet"])


def _to_records(
    rows: Iterable[_Row], pids: dict[str, int], camids: dict[str, int]
) -> dict[str, list[Record]]:
    """Group frames into tracklets. Each split keeps the order of the rows."""
    records: dict[str, list[Record]] = {split: [] for split in SUBSETS}
    previous = None
    for row in rows:
        pid, camid = pids[row.pid], camids.get(row.camid, 0)
        key = (row.tracklet, row.split, pid, camid)
        if row.tracklet and key == previous:
            last = records[row.split][-1]
            records[row.split][-1] = replace(last, paths=(*last.paths, row.path))
        else:
            records[row.split].append(Record((row.path,), pid, camid))
        previous = key
    return records


def number_labels(labels: Iterable[str], *, keep_integers: bool) -> dict[str, int]:
    """Assign a number to every label; different labels always have different numbers.

    Labels are integers only if all of them are canonical 64-bit integers ("7" and "-1"; not "07",
    "1_1" or "+7"). Then they are in numeric order. Otherwise all of them are text, in alphabetical
    order.

    Args:
        labels: identities or cameras.
        keep_integers: True for identities: integers keep their values, text is numbered from 1,
            and "-1" is `JUNK` in any case. False for cameras: numbered from 0.
    """
    unique = set(labels)
    if all(_is_canonical(label) for label in unique):
        ordered = sorted(unique, key=int)
        if keep_integers:
            return {label: int(label) for label in ordered}
        return {label: number for number, label in enumerate(ordered)}
    if not keep_integers:
        return {label: number for number, label in enumerate(sorted(unique))}
    words = sorted(unique - {str(JUNK)})
    return {str(JUNK): JUNK, **{label: number for number, label in enumerate(words, start=1)}}


def _is_canonical(label: str) -> bool:
    return bool(_CANONICAL_INTEGER.fullmatch(label)) and -(2**63) <= int(label) < 2**63


def _warn_lookalikes(path: Path, kind: str, labels: Iterable[str]) -> None:
    """Warn once about labels that are the same number written differently, such as 1 and 01."""
    by_value: defaultdict[int, list[str]] = defaultdict(list)
    for label in labels:
        try:
            by_value[int(label)].append(label)
        except ValueError:
            continue
    alike = [" and ".join(sorted(group)) for group in by_value.values() if len(group) > 1]
    if alike:
        logger.warning(
            "%s: %s with similar spellings are treated as different: %s%s",
            path,
            kind,
            "; ".join(sorted(alike)[:5]),
            "; ..." if len(alike) > 5 else "",
        )


def _warn_shared_pids(rows: Iterable[_Row], path: Path) -> None:
    train = {row.pid for row in rows if row.split == "train"}
    shared = sorted(train & {row.pid for row in rows if row.split != "train"})
    if shared:
        logger.warning(
            "%s: %d identities are in training and test (%s%s); scores will be too optimistic",
            path,
            len(shared),
            ", ".join(shared[:5]),
            ", ..." if len(shared) > 5 else "",
        )


def _folder_rows(identity: Path, split: str) -> list[_Row]:
    if identity.name == str(JUNK) and split != "gallery":
        raise ValueError(
            f"folder: {identity} marks images to ignore, which can only be in gallery/"
        )
    cameras = [("", identity), *((camera.name, camera) for camera in _subfolders(identity))]
    return [
        _Row(show_path(image), image, identity.name, camera, split)
        for camera, folder in cameras
        for image in list_images(folder)
    ]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
