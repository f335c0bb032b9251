"""Prepare datasets that were read: broken files, names of test sets, and their domains."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ember_reid.data.datasets import resolve
from ember_reid.data.images import find_broken
from ember_reid.data.records import Record, Splits, check_test_splits

logger = logging.getLogger("ember.data")


def index_by_name(parts: list[Splits]) -> dict[str, Splits]:
    """Checked test sets by name; a name that occurs again becomes name-2, name-3, ..."""
    tests: dict[str, Splits] = {}
    for splits in parts:
        name, number = splits.name, 1
        while name in tests:
            number += 1
            name = f"{splits.name}-{number}"
        tests[name] = check_test_splits(splits)
    return tests


def find_same_domain(
    tests: Mapping[str, str], trained_on: Sequence[str], root: Path
) -> tuple[str, ...]:
    """The names of the test sets that are in the folder of a training dataset.

    Args:
        tests: the specification of each test set, by name.
        trained_on: the specifications of the training datasets, whose folders may be missing.
        root: see `resolve`.
    """
    folders = {_find_folder(spec, root) for spec in trained_on}
    return tuple(name for name, spec in tests.items() if _find_folder(spec, root) in folders)


def _find_folder(spec: str, root: Path) -> str:
    """The folder (or the list) of a dataset; its specification if it does not exist."""
    try:
        return str(resolve(spec, root).path.resolve())
    except (OSError, ValueError):
        return spec


def leave_out_broken(loaded: dict[str, Splits]) -> dict[str, Splits]:
    """Decode every file once and leave out the broken ones.

    Tracklets lose the broken frames; a tracklet without a readable frame is left out.
    """
    records = (record for splits in loaded.values() for record in splits.records())
    paths = list(dict.fromkeys(path for record in records for path in record.paths))
    broken = find_broken(paths)
    if not broken:
        return loaded
    logger.warning(
        "left out %d of %d image files that cannot be read: %s",
        len(broken),
        len(paths),
        "; ".join(list(broken.values())[:5]),
    )

    def keep(records: tuple[Record, ...]) -> tuple[Record, ...]:
        readable = (
            replace(r, paths=tuple(path for path in r.paths if path not in broken)) for r in records
        )
        return tuple(record for record in readable if record.paths)

    return {
        spec: replace(s, train=keep(s.train), query=keep(s.query), gallery=keep(s.gallery))
        for spec, s in loaded.items()
    }
