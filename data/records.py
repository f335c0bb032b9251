"""Records of images with an identity and a camera, in three splits: train, query and gallery."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

logger = logging.getLogger("ember.data")

# The pid of gallery images that count neither as a match nor as an error.
JUNK = -1
UNKNOWN_VIEW = -1
# The pid of training images without a known identity.
NO_PID = -1
# Gallery images with the query's own identity and camera are left out.
CROSS_CAMERA = "cross-camera"
# Every gallery image counts; for data without camera labels.
ALL = "all"
# CUHK03: one random gallery image per identity, ten times; scores are averaged.
SINGLE_SHOT = "single-shot"
# VehicleID: one random image per identity is the gallery, the others are queries, ten times.
ONE_PER_IDENTITY = "one-per-identity"
PROTOCOLS = (CROSS_CAMERA, ALL, SINGLE_SHOT, ONE_PER_IDENTITY)
SUBSETS = ("train", "query", "gallery")


@dataclass(frozen=True, slots=True)
class Record:
    """One image (one path) or one tracklet (its frames in temporal order).

    Attributes:
        paths: the files.
        pid: a class index 0..C-1 in a training split. Otherwise the number of the identity in the
            dataset; `JUNK` marks images to ignore, 0 a distractor (a person who is in no query).
        camid: the camera, counted from 0.
        viewid: the viewpoint, counted from 0; `UNKNOWN_VIEW` if it is unknown.
        domain: the number of the training dataset, if several are merged.
    """

    paths: tuple[Path, ...]
    pid: int
    camid: int
    viewid: int = UNKNOWN_VIEW
    domain: int = 0


@dataclass(frozen=True)
class Splits:
    """A dataset.

    Attributes:
        train: records to train on, with class indices as pids.
        query: records to search for.
        gallery: records to search in.
        protocol: the evaluation rule of the dataset's authors; see docs/reference/datasets.md.
        name: the name under which results are reported.
        train_labels: the dataset's own labels of the training classes, by class index.
    """

    train: tuple[Record, ...]
    query: tuple[Record, ...]
    gallery: tuple[Record, ...]
    protocol: str = CROSS_CAMERA
    name: str = ""
    train_labels: tuple[str, ...] = ()

    def records(self) -> Iterator[Record]:
        """All records: train, query, gallery."""
        yield from self.train
        yield from self.query
        yield from self.gallery


@dataclass(frozen=True)
class Counts:
    """The size of one split.

    Attributes:
        pids: identities, without junk.
        records: images or tracklets, without junk.
        camids: cameras, without junk.
        junk: images or tracklets with the pid `JUNK`.
    """

    pids: int
    records: int
    camids: int
    junk: int = 0


def count(records: Iterable[Record]) -> Counts:
    """Count one split as published tables do: distractors are one identity, junk is left out."""
    records = list(records)
    kept = [record for record in records if record.pid != JUNK]
    return Counts(
        pids=len({record.pid for record in kept}),
        records=len(kept),
        camids=len({record.camid for record in kept}),
        junk=len(records) - len(kept),
    )


def relabel(
    records: Iterable[Record], *, first_pid: int = 0, first_camid: int = 0, domain: int = 0
) -> tuple[Record, ...]:
    """Number identities from `first_pid`, in order of pids; shift cameras; set the domain."""
    records = tuple(records)
    pids = sorted({record.pid for record in records})
    classes = {pid: index for index, pid in enumerate(pids, start=first_pid)}
    return tuple(
        replace(r, pid=classes[r.pid], camid=first_camid + r.camid, domain=domain) for r in records
    )


def merge_train(splits: Sequence[Splits]) -> tuple[Record, ...]:
    """Concatenate the training records of several datasets; no identity or camera is shared.

    The domain of a record is the number of its dataset.
    """
    merged: list[Record] = []
    first_pid = first_camid = 0
    for domain, part in enumerate(splits):
        records = relabel(part.train, first_pid=first_pid, first_camid=first_camid, domain=domain)
        merged.extend(records)
        first_pid = 1 + max((r.pid for r in records), default=first_pid - 1)
        first_camid = 1 + max((r.camid for r in records), default=first_camid - 1)
    return tuple(merged)


def merged_classes(splits: Sequence[Splits]) -> tuple[tuple[str, str], ...]:
    """(dataset, label of the identity) for each class of `merge_train`, to match two networks."""
    classes = []
    for part in splits:
        labels = part.train_labels
        pids = sorted({record.pid for record in part.train})
        classes += [(part.name, labels[pid] if pid < len(labels) else str(pid)) for pid in pids]
    return tuple(classes)


def statistics_table(splits: Splits) -> str:
    """The usual table of a dataset: identities, images, cameras and junk, one line per split."""
    unit = "tracklets" if is_video(splits) else "images"
    lines = [f"{'subset':<8} | {'ids':>6} | {unit:>9} | {'cameras':>7} | {'junk':>6}"]
    lines.append("-" * len(lines[0]))
    for subset in SUBSETS:
        c = count(getattr(splits, subset))
        lines.append(f"{subset:<8} | {c.pids:>6} | {c.records:>9} | {c.camids:>7} | {c.junk:>6}")
    return "\n".join(lines)


def is_video(splits: Splits) -> bool:
    """True when any record has more than one frame."""
    return any(len(record.paths) > 1 for record in splits.records())


def cameras_by_pid(records: Iterable[Record]) -> dict[int, set[int]]:
    """The cameras of each identity."""
    cameras: defaultdict[int, set[int]] = defaultdict(set)
    for record in records:
        cameras[record.pid].add(record.camid)
    return dict(cameras)


def count_matched(query: Sequence[Record], gallery: Sequence[Record], *, cross_camera: bool) -> int:
    """The number of queries with a match in the gallery, in another camera if `cross_camera`."""
    cameras = cameras_by_pid(gallery)
    matched = 0
    for record in query:
        seen = cameras.get(record.pid, set())
        matched += bool(seen - {record.camid}) if cross_camera else bool(seen)
    return matched


def check_test_splits(splits: Splits) -> Splits:
    """Check that query and gallery can be evaluated, and warn about queries without a match.

    Returns:
        The splits with the protocol that is used: `ALL` instead of `CROSS_CAMERA` if no query has
        a match in another camera.

    Raises:
        ValueError: if query or gallery is empty, or no query has a match.
    """
    name = splits.name or "the dataset"
    for subset in ("query", "gallery"):
        if not getattr(splits, subset):
            raise ValueError(f"{name} has no {subset} images, so it cannot be tested on")
    _warn_unknown_identities(splits, name)
    matched = count_matched(splits.query, splits.gallery, cross_camera=False)
    if not matched:
        raise ValueError(
            f"{name} cannot be tested on: none of its {len(splits.query)} query images shows an"
            " identity of the gallery"
        )
    if splits.protocol in (ALL, SINGLE_SHOT, ONE_PER_IDENTITY):
        return splits
    matched_across = count_matched(splits.query, splits.gallery, cross_camera=True)
    if not matched_across:
        one_camera = len({r.camid for r in (*splits.query, *splits.gallery)}) == 1
        logger.warning(
            '%s: %s; protocol "%s" is used: images of the query\'s own camera count as matches',
            name,
            "no camera labels, or one camera only"
            if one_camera
            else "no query identity is seen by a second camera",
            ALL,
        )
        return replace(splits, protocol=ALL)
    if matched_across < matched:
        logger.warning(
            "%s: %d of %d queries have matches in their own camera only; they are not counted"
            " (protocol %s)",
            name,
            matched - matched_across,
            len(splits.query),
            splits.protocol,
        )
    return splits


def _warn_unknown_identities(splits: Splits, name: str) -> None:
    pids = {r.pid for r in splits.query}
    unknown = sorted(pids - {r.pid for r in splits.gallery})
    if unknown:
        logger.warning(
            "%s: %d of %d query identities have no image in the gallery (%s%s) and are not counted",
            name,
            len(unknown),
            len(pids),
            ", ".join(str(pid) for pid in unknown[:5]),
            ", ..." if len(unknown) > 5 else "",
        )
