"""What a dataset is: records of images with an identity and a camera, in three splits."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger("ember.data")

JUNK = -1  # pid of gallery images that count neither as a match nor as a mistake
CROSS_CAMERA = "cross-camera"  # gallery images of the query's own identity and camera are left out
ALL = "all"  # every gallery image counts; for data without camera labels
SINGLE_SHOT = "single-shot"  # CUHK03's: one gallery image per identity, drawn ten times; the mean of the scores
ONE_PER_IDENTITY = "one-per-identity"  # VehicleID's: one image per identity is the gallery, all others ask; ten draws
PROTOCOLS = (CROSS_CAMERA, ALL, SINGLE_SHOT, ONE_PER_IDENTITY)


class Record(NamedTuple):
    """One item: an image (one path) or a tracklet (its frames in order).

    `pid` is a class index 0..C-1 in a training split; elsewhere the dataset's own number, where `JUNK` marks
    images to ignore and 0 a distractor (a person that no query shows). `camid` counts from 0.
    """

    paths: tuple[Path, ...]
    pid: int
    camid: int


class Splits(NamedTuple):
    """A dataset: what is trained on, what is searched for, and what is searched.

    `protocol` is the evaluation rule that the authors of the dataset prescribe; see docs/datasets.md.
    `train_labels` are the dataset's own names of the training classes, by pid of `train`.
    """

    train: tuple[Record, ...]
    query: tuple[Record, ...]
    gallery: tuple[Record, ...]
    protocol: str = CROSS_CAMERA
    name: str = ""
    train_labels: tuple[str, ...] = ()


class Counts(NamedTuple):
    """Identities, items (images or tracklets) and cameras of one split, and the junk items, which the others
    leave out.
    """

    pids: int
    records: int
    camids: int
    junk: int = 0


def count(records: Iterable[Record]) -> Counts:
    """Count one split as the field's tables do: a distractor identity 0 counts as one identity, junk not at
    all.
    """
    records = list(records)
    kept = [record for record in records if record.pid != JUNK]
    return Counts(
        pids=len({record.pid for record in kept}),
        records=len(kept),
        camids=len({record.camid for record in kept}),
        junk=len(records) - len(kept),
    )


def relabel(
    records: Iterable[Record], *, first_pid: int = 0, first_camid: int = 0
) -> tuple[Record, ...]:
    """Number identities first_pid, first_pid + 1, ... in sorted order of their pids; shift the cameras."""
    records = tuple(records)
    classes = {
        pid: first_pid + i for i, pid in enumerate(sorted({record.pid for record in records}))
    }
    return tuple(Record(r.paths, classes[r.pid], first_camid + r.camid) for r in records)


def merge_train(splits: Sequence[Splits]) -> tuple[Record, ...]:
    """The training records of several datasets as one: identities numbered on, cameras kept apart."""
    merged: list[Record] = []
    first_pid = first_camid = 0
    for part in splits:
        records = relabel(part.train, first_pid=first_pid, first_camid=first_camid)
        merged.extend(records)
        first_pid = 1 + max((r.pid for r in records), default=first_pid - 1)
        first_camid = 1 + max((r.camid for r in records), default=first_camid - 1)
    return tuple(merged)


def merged_classes(splits: Sequence[Splits]) -> tuple[tuple[str, str], ...]:
    """(dataset, its label of the identity) for each class of `merge_train`, so that two networks can be compared."""
    classes = []
    for part in splits:
        labels = part.train_labels
        pids = sorted({record.pid for record in part.train})
        classes += [(part.name, labels[pid] if pid < len(labels) else str(pid)) for pid in pids]
    return tuple(classes)


def statistics_table(splits: Splits) -> str:
    """The table that the field prints when a dataset is loaded, one line per split."""
    unit = "tracklets" if is_video(splits) else "images"
    lines = [f"{'subset':<8} | {'ids':>6} | {unit:>9} | {'cameras':>7} | {'junk':>6}"]
    lines.append("-" * len(lines[0]))
    for subset in ("train", "query", "gallery"):
        counts = count(getattr(splits, subset))
        lines.append(
            f"{subset:<8} | {counts.pids:>6} | {counts.records:>9} | {counts.camids:>7} | {counts.junk:>6}"
        )
    return "\n".join(lines)


def is_video(splits: Splits) -> bool:
    """True when any record has more than one frame."""
    return any(
        len(r.paths) > 1 for part in (splits.train, splits.query, splits.gallery) for r in part
    )


def count_matched(query: Sequence[Record], gallery: Sequence[Record], *, cross_camera: bool) -> int:
    """How many queries have at least one match in the gallery, under another camera when `cross_camera`."""
    cameras: dict[int, set[int]] = {}
    for record in gallery:
        cameras.setdefault(record.pid, set()).add(record.camid)
    matched = 0
    for record in query:
        seen = cameras.get(record.pid, set())
        matched += bool(seen - {record.camid}) if cross_camera else bool(seen)
    return matched


def check_test_splits(splits: Splits) -> Splits:
    """Say what the query and gallery allow, and return the splits with the protocol that will be used.

    Raises ValueError when there is nothing to search for, nothing to search, or no query that can be
    answered.
    """
    name = splits.name or "the dataset"
    for subset in ("query", "gallery"):
        if not getattr(splits, subset):
            raise ValueError(f"{name} has no {subset} images, so it cannot be tested on")
    unknown = {r.pid for r in splits.query} - {r.pid for r in splits.gallery}
    if unknown:
        some = ", ".join(str(pid) for pid in sorted(unknown)[:5])
        logger.warning(
            "%s: %d of %d query identities have no image in the gallery (%s%s) and are not counted",
            name,
            len(unknown),
            len({r.pid for r in splits.query}),
            some,
            ", ..." if len(unknown) > 5 else "",
        )
    answerable = count_matched(splits.query, splits.gallery, cross_camera=False)
    if not answerable:
        raise ValueError(
            f"{name} cannot be tested on: none of its {len(splits.query)} query images shows an identity of"
            " the gallery"
        )
    if splits.protocol in (ALL, SINGLE_SHOT, ONE_PER_IDENTITY):
        return splits
    matched = count_matched(splits.query, splits.gallery, cross_camera=True)
    if matched == 0:
        camids = {r.camid for r in splits.query} | {r.camid for r in splits.gallery}
        reason = (
            "no camera labels, or one camera only"
            if len(camids) == 1
            else "no query identity is seen by a second camera"
        )
        logger.warning(
            '%s: %s; protocol "%s" is used: images of the query\'s own camera count as matches',
            name,
            reason,
            ALL,
        )
        return splits._replace(protocol=ALL)
    if matched < answerable:
        logger.warning(
            "%s: %d of %d queries have matches in their own camera only; they are not counted (protocol %s)",
            name,
            answerable - matched,
            len(splits.query),
            splits.protocol,
        )
    return splits
