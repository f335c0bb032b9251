"""People's own data: a csv list, or folders."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ember_reid.data.datasets.common import find_root, finish, list_images, logger
from ember_reid.data.records import ALL, CROSS_CAMERA, JUNK, Record, Splits

SPLITS = ("train", "query", "gallery")


@dataclass(frozen=True)
class _Row:
    where: str  # file and line, for messages
    path: Path
    pid: str
    camid: str
    split: str


def load_csv(path: Path) -> Splits:
    """A list with the columns path, pid, split and, if known, camid; any order, other columns are ignored.

    Paths are relative to the list's folder. Identities and cameras may be numbers or words. The split is
    train, query or gallery; the gallery may have pid -1 for images to ignore. Consecutive lines with the same
    value in an optional column `tracklet` are the frames of one tracklet. Raises FileNotFoundError and
    ValueError with the file and the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"csv: the list {path} does not exist")
    rows, tracklets = _read_rows(path)
    records = _to_records(rows, tracklets)
    has_cameras = any(row.camid for row in rows)
    if not has_cameras:
        logger.warning(
            'csv: %s has no camera labels; protocol "%s": every gallery image counts', path, ALL
        )
    _warn_shared_pids(rows, path)
    return finish(
        path.stem,
        path,
        train=records["train"],
        query=records["query"],
        gallery=records["gallery"],
        protocol=CROSS_CAMERA if has_cameras else ALL,
        labels={
            number: word for word, number in _numbers([row.pid for row in rows], keep=True).items()
        },
    )


def _read_rows(path: Path) -> tuple[list[_Row], list[str]]:
    """The rows in the order of the file, and their tracklet names ("" for single images)."""
    rows, tracklets = [], []
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [(column or "").strip().lower() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            missing = [column for column in ("path", "pid", "split") if column not in columns]
            if missing:
                raise ValueError(
                    f"{path}, line 1: no column {', '.join(missing)}; the first line must name the columns"
                    f" path, pid, camid (may be missing), split; found: {', '.join(columns) or 'nothing'}"
                )
            for line in reader:
                where = f"{path}, line {reader.line_num}"
                rows.append(_parse_row(line, where, path.parent))
                tracklets.append((line.get("tracklet") or "").strip())
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a csv list in UTF-8 ({error})") from None
    if not rows:
        raise ValueError(f"{path} has no rows")
    missing = [row for row in rows if not row.path.is_file()]
    if missing:
        more = f" (nor do {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"{missing[0].where}: the image {missing[0].path} does not exist{more}"
        )
    return rows, tracklets


def _parse_row(line: dict[str, str | None], where: str, folder: Path) -> _Row:
    values = {key: (line.get(key) or "").strip() for key in ("path", "pid", "camid", "split")}
    for key in ("path", "pid", "split"):
        if not values[key]:
            raise ValueError(f"{where}: the column {key} is empty")
    split = values["split"].lower()
    if split not in SPLITS:
        raise ValueError(
            f'{where}: the split is "{values["split"]}"; it must be {", ".join(SPLITS)}'
        )
    if values["pid"] == "-1" and split != "gallery":
        raise ValueError(
            f"{where}: pid -1 marks gallery images to ignore, it cannot be in the split {split}"
        )
    return _Row(where, folder / values["path"], values["pid"], values["camid"], split)


def _to_records(rows: Sequence[_Row], tracklets: Sequence[str]) -> dict[str, list[Record]]:
    """Number words, join frames to tracklets, and keep each split in the order of the file."""
    pids = _numbers([row.pid for row in rows], keep=True)
    camids = _numbers([row.camid for row in rows if row.camid], keep=False)
    for row in rows:
        if camids and not row.camid:
            raise ValueError(
                f"{row.where}: no camid, while other lines have one; give all lines one, or none"
            )
    records: dict[str, list[Record]] = {split: [] for split in SPLITS}
    previous = None
    for row, tracklet in zip(rows, tracklets, strict=True):
        pid, camid = pids[row.pid], camids.get(row.camid, 0)
        key = (tracklet, row.split, pid, camid)
        if tracklet and key == previous:
            last = records[row.split][-1]
            records[row.split][-1] = replace(last, paths=(*last.paths, row.path))
        else:
            records[row.split].append(Record((row.path,), pid, camid))
        previous = key
    return records


def _numbers(labels: Sequence[str], *, keep: bool) -> dict[str, int]:
    """Labels to integers: numbers in numeric order, words in alphabetical order, from 0; with `keep` numbers
    as they are.
    """
    unique = sorted(set(labels))
    try:
        values = {label: int(label) for label in unique}
    except ValueError:
        words = [label for label in unique if label != str(JUNK)]
        return {
            str(JUNK): JUNK,
            **{label: number for number, label in enumerate(words, start=1 if keep else 0)},
        }
    if keep:
        return values
    order = {value: number for number, value in enumerate(sorted(set(values.values())))}
    return {label: order[value] for label, value in values.items()}


def _warn_shared_pids(rows: Sequence[_Row], path: Path) -> None:
    train = {row.pid for row in rows if row.split == "train"}
    shared = train & {row.pid for row in rows if row.split != "train"}
    if shared:
        some = ", ".join(sorted(shared)[:5])
        logger.warning(
            "%s: identities both trained on and tested on: %d (%s%s); scores will flatter",
            path,
            len(shared),
            some,
            ", ..." if len(shared) > 5 else "",
        )


def load_folder(path: Path) -> Splits:
    """Folders split/identity/image, where split is train, query or gallery and the identity any word.

    The camera is a folder between identity and image, split/identity/camera/image, for all images or for
    none. An identity folder "-1" in the gallery holds images to ignore. Raises FileNotFoundError and
    ValueError.
    """
    root = find_root(Path(path), needed=("train", "query", "gallery"), name="folder")
    rows = []
    for split in SPLITS:
        folders = (
            sorted(p for p in (root / split).iterdir() if p.is_dir())
            if (root / split).is_dir()
            else []
        )
        for identity in folders:
            rows.extend(_folder_rows(identity, split))
        loose = list_images(root / split)
        if loose:
            raise ValueError(
                f"folder: {loose[0]} lies in {split}/ itself; expected {split}/IDENTITY/{loose[0].name}"
            )
    if not rows:
        raise FileNotFoundError(
            f"folder: no images in {root}; expected train/IDENTITY/*.jpg and the like"
        )
    records = _to_records(rows, [""] * len(rows))
    has_cameras = any(row.camid for row in rows)
    if not has_cameras:
        logger.warning(
            'folder: %s has no camera folders; protocol "%s": every gallery image counts', root, ALL
        )
    _warn_shared_pids(rows, root)
    return finish(
        root.name,
        root,
        train=records["train"],
        query=records["query"],
        gallery=records["gallery"],
        protocol=CROSS_CAMERA if has_cameras else ALL,
        labels={
            number: word for word, number in _numbers([row.pid for row in rows], keep=True).items()
        },
    )


def _folder_rows(identity: Path, split: str) -> list[_Row]:
    if identity.name == "-1" and split != "gallery":
        raise ValueError(
            f"folder: {identity} marks images to ignore, which can only be in gallery/"
        )
    rows = [_Row(str(image), image, identity.name, "", split) for image in list_images(identity)]
    for camera in sorted(p for p in identity.iterdir() if p.is_dir()):
        rows.extend(
            _Row(str(image), image, identity.name, camera.name, split)
            for image in list_images(camera)
        )
    return rows
