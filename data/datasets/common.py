"""Helpers of the dataset readers: find folders, list images, parse names, check counts."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ember_reid.data.images import IMAGE_SUFFIXES, show_path
from ember_reid.data.records import (
    CROSS_CAMERA,
    JUNK,
    Record,
    Splits,
    count,
    relabel,
    statistics_table,
)

logger = logging.getLogger("ember.data")

# Published sizes by split: identities, items, cameras; None where a number is not published.
Official = dict[str, tuple[int | None, int | None, int | None]]
_SEARCH_DEPTH = 3


def find_root(path: Path, *, needed: Sequence[str], name: str) -> Path:
    """Find the folder that contains one of `needed`: `path`, or one folder below or above it.

    Raises:
        FileNotFoundError: there is none or several; the message states what was found.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{name}: the folder {path} does not exist")
    if not path.is_dir():
        raise FileNotFoundError(f"{name}: {path} is a file, a folder was expected")
    found = _holders(path, needed)
    if not found and _holds(path.parent, needed) and path.name in needed:
        found = [path.parent]
    if not found:
        inside = sorted(entry.name for entry in path.iterdir())
        shown = ", ".join(inside[:6]) + (", ..." if len(inside) > 6 else "")
        raise FileNotFoundError(
            f"{name}: no {' or '.join(needed)} in {path}; found there: {shown or 'nothing'}"
        )
    if len(found) > 1:
        raise FileNotFoundError(
            f"{name}: {needed[0]} is in several folders of {path}; name one of them:"
            f" {', '.join(str(folder) for folder in found)}"
        )
    if found[0] != path:
        logger.warning("%s: found %s/ in %s; using it", name, _holds(found[0], needed), found[0])
    return found[0]


def _holds(folder: Path, needed: Sequence[str]) -> str:
    return next((entry for entry in needed if (folder / entry).exists()), "")


def _holders(path: Path, needed: Sequence[str]) -> list[Path]:
    """The folders nearest to `path`, at most _SEARCH_DEPTH below it, with one of `needed`."""
    level = [path]
    for _ in range(_SEARCH_DEPTH + 1):
        found = [folder for folder in level if _holds(folder, needed)]
        if found:
            return found
        level = [
            entry for folder in level[:200] for entry in sorted(folder.iterdir()) if entry.is_dir()
        ]
    return []


def list_images(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; empty if the folder does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _is_image_name(path))


def list_images_below(folder: Path) -> list[Path]:
    """Image files in a folder and its subfolders, sorted by path."""
    found = folder.rglob("*") if folder.is_dir() else ()
    return sorted(path for path in found if _is_image_name(path))


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def require_folder(folder: Path, *, name: str) -> Path:
    """Return the folder. Raises FileNotFoundError if it does not exist."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: the folder {folder} does not exist")
    return folder


def parse_names(
    paths: Iterable[Path], pattern: re.Pattern[str], *, name: str, example: str
) -> list[Record]:
    """Records from file names.

    Args:
        paths: the images.
        pattern: matched from the start of the name; has the group `pid` and perhaps `camid`, which
            counts from 1.
        name: the dataset, for messages.
        example: a file name, for messages.

    Raises:
        ValueError: a file name does not match; the message contains the first one.
    """
    records = []
    for path in paths:
        match = pattern.match(path.name)
        if match is None:
            raise ValueError(
                f"{name}: the file name {show_path(path)} does not parse; expected one like"
                f" {example}"
            )
        camid = int(match.groupdict().get("camid") or 1) - 1
        records.append(Record((path,), int(match["pid"]), camid))
    return records


def read_lines(path: Path, *, name: str) -> list[tuple[int, str]]:
    """Read the non-blank lines of a list file, with line numbers from 1.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not text in UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{name}: the list file {path} does not exist")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{name}: the list file {path} is not text (UTF-8)") from None
    return [(n, line.strip()) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]


def read_mat(path: Path, key: str, *, name: str) -> np.ndarray[Any, Any]:
    """Read a variable of a MATLAB file of version 5 to 7. Raises FileNotFoundError, ValueError."""
    # Importing scipy.io takes half a second, and few datasets need it.
    from scipy.io import loadmat

    if not path.is_file():
        raise FileNotFoundError(f"{name}: the file {path} does not exist")
    try:
        content = loadmat(path)
    except NotImplementedError:
        raise ValueError(
            f"{name}: {path} is a .mat file of version 7.3, expected version 5 to 7"
        ) from None
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{name}: {path} cannot be read as a .mat file ({error})") from None
    if key not in content:
        keys = ", ".join(k for k in content if not k.startswith("__")) or "nothing"
        raise ValueError(f"{name}: {path} has no variable {key}; it has: {keys}")
    return content[key]


def forbid_pids(records: Iterable[Record], pids: Sequence[int], *, name: str, subset: str) -> None:
    """Raise ValueError if a record has an identity that is not allowed in this split."""
    for record in records:
        if record.pid in pids:
            kind = "junk" if record.pid == JUNK else "a distractor"
            raise ValueError(
                f"{name}: {record.paths[0]} has the identity {record.pid} ({kind}), which cannot be"
                f" in {subset}"
            )


def finish(
    name: str,
    root: Path,
    *,
    train: Iterable[Record],
    query: Iterable[Record],
    gallery: Iterable[Record],
    protocol: str = CROSS_CAMERA,
    official: Official | None = None,
    labels: Mapping[int, str] | None = None,
) -> Splits:
    """Number the training identities, log the statistics and compare them with `official`.

    Args:
        name: the dataset.
        root: its folder, for messages.
        train: training records with the dataset's own pids.
        query: query records.
        gallery: gallery records.
        protocol: the evaluation rule.
        official: published sizes; junk does not count.
        labels: the original labels by pid, if they are not numbers.

    Raises:
        FileNotFoundError: if there is no image.
    """
    train, query, gallery = tuple(train), tuple(query), tuple(gallery)
    _check_numbers(name, (*train, *query, *gallery))
    names = labels or {}
    train_labels = tuple(names.get(pid, str(pid)) for pid in sorted({r.pid for r in train}))
    splits = Splits(relabel(train), query, gallery, protocol, name, train_labels)
    if not (splits.train or splits.query or splits.gallery):
        raise FileNotFoundError(f"{name}: no images in {root}")
    table = statistics_table(splits)
    logger.info("%s loaded from %s (protocol: %s)\n%s", name, root, protocol, table)
    differences = _differences(splits, official or {})
    if differences:
        logger.warning("%s: not the official data: %s", name, ", ".join(differences))
    return splits


def _check_numbers(name: str, records: Iterable[Record]) -> None:
    """Raise ValueError for an identity or a camera that does not fit into 64 bits."""
    for record in records:
        if max(abs(record.pid), abs(record.camid)) >= 2**63:
            raise ValueError(
                f"{name}: the identity or camera of {show_path(record.paths[0])} does not fit into"
                " 64 bits"
            )


def _differences(splits: Splits, official: Official) -> list[str]:
    """Differences between the sizes of the splits and the published ones, without empty splits."""
    differences = []
    for subset, expected in official.items():
        counts = count(getattr(splits, subset))
        found = (counts.pids, counts.records, counts.camids)
        for what, number, wanted in zip(
            ("identities", "items", "cameras"), found, expected, strict=True
        ):
            if counts.records and wanted is not None and number != wanted:
                differences.append(f"{subset} has {number} {what} (officially {wanted})")
    return differences


def finish_two_cameras(
    name: str,
    root: Path,
    *,
    train: Iterable[Record],
    test: Sequence[Record],
    official: Official,
    protocol: str = CROSS_CAMERA,
) -> Splits:
    """`finish` for datasets with two cameras: camera 0 is the query, camera 1 the gallery."""
    return finish(
        name,
        root,
        train=train,
        query=[record for record in test if record.camid == 0],
        gallery=[record for record in test if record.camid == 1],
        protocol=protocol,
        official=official,
    )
