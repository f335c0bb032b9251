"""Which boxes become crops: matched to frames, filtered, and thinned along their tracks."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ember_reid.tools.crops.boxes import Annotations, Box
from ember_reid.tools.crops.frames import FrameSource

# More boxes in one frame are refused: overlaps are computed for all pairs.
MAX_BOXES_PER_FRAME = 5000
# Name of a dropped box's reason in the report.
NO_IMAGE = "are for images that do not exist"
NO_TRACK = "have no track"
DUPLICATE = "repeat a track within a frame"
LABEL = "have another label"
OUTSIDE = "are outside the frame"
TRUNCATED = "are cut off by the frame"
HIDDEN = "are hidden"
SMALL = "are too small"
OVERLAP = "overlap another box"
BLURRED = "are blurred"
INVALID = "have no area"
BEYOND = "are in frames after the end of the video"


@dataclass(frozen=True)
class Filters:
    """Which boxes to keep.

    Attributes:
        labels: classes of objects; empty for all.
        every: use every n-th frame.
        per_track: most crops per track; 0 for all.
        min_width, min_height: pixels, after clipping to the frame.
        min_visible: share of the area of a box that is inside the frame; also the share that is
            not hidden, if the annotations state it.
        max_overlap: intersection over union with any other box of the frame.
        min_sharpness: variance of the Laplacian of the gray crop.
    """

    labels: tuple[str, ...] = ()
    every: int = 1
    per_track: int = 0
    min_width: int = 16
    min_height: int = 32
    min_visible: float = 0.6
    max_overlap: float = 0.7
    min_sharpness: float = 0.0


@dataclass(frozen=True, slots=True)
class Placed:
    """A box at its frame: edges in pixels, not clipped."""

    index: int
    track: str
    left: float
    top: float
    right: float
    bottom: float
    visible: float = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A box that may become a crop: edges in whole pixels inside the frame."""

    index: int
    track: str
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Numbering:
    """How frame numbers of the annotations become indices of the video.

    Attributes:
        first: number of the first frame.
        rate: frames per second of the annotations; 0 if it is that of the video.
        ignore_beyond: leave out boxes after the end of the video.
    """

    first: int
    rate: float = 0.0
    ignore_beyond: bool = False


def select(
    annotations: Annotations, frames: FrameSource, filters: Filters, numbering: Numbering
) -> tuple[list[list[Candidate]], Counter[str]]:
    """The parts of all tracks: of each part, the sharpest candidate becomes a crop.

    Returns:
        Parts in the order of tracks, and the numbers of dropped boxes by reason.

    Raises:
        ValueError: the boxes belong to other frames than these.
    """
    dropped = Counter({INVALID: annotations.num_invalid})
    _check_size(annotations, frames)
    placed = place(annotations, frames, numbering, dropped, filters.labels)
    kept = [
        candidate
        for boxes in group_by_frame(placed, every=filters.every).values()
        for candidate in filter_frame(boxes, frames.size, filters, dropped)
    ]
    by_track: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in sorted(kept, key=lambda candidate: candidate.index):
        by_track[candidate.track].append(candidate)
    parts = [part for group in by_track.values() for part in split_track(group, filters.per_track)]
    return parts, +dropped


def _check_size(annotations: Annotations, frames: FrameSource) -> None:
    if annotations.size and annotations.size != frames.size:
        ours, theirs = (" x ".join(map(str, size)) for size in (frames.size, annotations.size))
        raise ValueError(
            f"{annotations.source} is for frames of {theirs} pixels, {frames.path} has {ours}"
        )


def place(
    annotations: Annotations,
    frames: FrameSource,
    numbering: Numbering,
    dropped: Counter[str],
    labels: Collection[str] = (),
) -> list[Placed]:
    """Match boxes to frames. A track has at most one box per frame: the first one counts.

    If no box has a track, every box is a track of its own, without a label.
    """
    has_tracks = any(box.track for box in annotations.boxes)
    seen, placed = set(), []
    beyond = 0
    for box in annotations.boxes:
        index = find_index(box, frames, numbering)
        beyond = max(beyond, index + 1) if index >= frames.count else beyond
        if labels and box.label not in labels:
            dropped[LABEL] += 1
        elif has_tracks and not box.track:
            dropped[NO_TRACK] += 1
        elif not 0 <= index < frames.count:
            dropped[BEYOND if index >= 0 else NO_IMAGE] += 1
        elif has_tracks and (index, box.track) in seen:
            dropped[DUPLICATE] += 1
        else:
            seen.add((index, box.track))
            placed.append(_scale(box, index, frames.size))
    if beyond and not frames.problem and not numbering.ignore_beyond:
        raise ValueError(_describe_beyond(annotations.source, frames, beyond))
    if annotations.boxes and dropped[NO_IMAGE] == len(annotations.boxes):
        raise ValueError(f"{annotations.source} has no box for a frame of {frames.path}")
    return placed


def _describe_beyond(source: Path, frames: FrameSource, beyond: int) -> str:
    rate = f" at {frames.rate:g} per second" if frames.rate else ""
    return (
        f"{source} has boxes up to frame {beyond}, {frames.path} has {frames.count} frames{rate}: "
        "give the frame rate of the tracks with --tracks-rate, or leave out the rest with "
        "--ignore-beyond"
    )


def find_index(box: Box, frames: FrameSource, numbering: Numbering) -> int:
    """The index of the frame of a box; -1 if there is no such image."""
    if box.name and frames.names:
        # Label Studio puts a random word before the name of a file.
        for name in (box.name, box.name.partition("-")[2]):
            if name in frames.names:
                return frames.names[name]
        return -1
    number = box.frame
    if number is None:
        found = re.search(r"(\d{1,9})$", box.name)
        number = int(found[1]) if found else -1
    index = number - numbering.first
    if index < 0:
        return -1
    if numbering.rate and frames.rate:
        # The frame that is shown at that time.
        index = int(index * frames.rate / numbering.rate + 1e-6)
    return index


def _scale(box: Box, index: int, size: tuple[int, int]) -> Placed:
    width, height = size if box.relative else (1, 1)
    left, top = box.left * width, box.top * height
    right, bottom = left + box.width * width, top + box.height * height
    return Placed(index, box.track, left, top, right, bottom, box.visible)


def group_by_frame(placed: Iterable[Placed], *, every: int = 1) -> dict[int, list[Placed]]:
    """Boxes by frame, of every n-th frame."""
    frames: defaultdict[int, list[Placed]] = defaultdict(list)
    for box in placed:
        if box.index % every == 0:
            frames[box.index].append(box)
    crowded = max(map(len, frames.values()), default=0)
    if crowded > MAX_BOXES_PER_FRAME:
        raise ValueError(f"a frame has {crowded} boxes, at most {MAX_BOXES_PER_FRAME} are allowed")
    return dict(sorted(frames.items()))


def filter_frame(
    boxes: Sequence[Placed], size: tuple[int, int], filters: Filters, dropped: Counter[str]
) -> list[Candidate]:
    """Clip the boxes of a frame and keep those that pass the filters."""
    overlaps = max_overlaps(boxes)
    kept = []
    for position, (box, overlap) in enumerate(zip(boxes, overlaps, strict=True)):
        left, right = (min(max(side, 0.0), float(size[0])) for side in (box.left, box.right))
        top, bottom = (min(max(side, 0.0), float(size[1])) for side in (box.top, box.bottom))
        area = (box.right - box.left) * (box.bottom - box.top)
        visible = (right - left) * (bottom - top) / area
        edges = round(left), round(top), round(right), round(bottom)
        reason = _reject(visible, edges, overlap, filters)
        if not reason and box.visible < filters.min_visible:
            reason = HIDDEN
        if reason:
            dropped[reason] += 1
        else:
            # A box without a track is a track of its own.
            track = box.track or f"\0{box.index}/{position}"
            kept.append(Candidate(box.index, track, *edges))
    return kept


def _reject(
    visible: float, edges: tuple[int, int, int, int], overlap: float, filters: Filters
) -> str:
    """The first filter that a box does not pass, or ""."""
    left, top, right, bottom = edges
    if visible <= 0:
        return OUTSIDE
    if visible < filters.min_visible:
        return TRUNCATED
    if right - left < max(filters.min_width, 1) or bottom - top < max(filters.min_height, 1):
        return SMALL
    return OVERLAP if overlap > filters.max_overlap else ""


def max_overlaps(boxes: Sequence[Placed]) -> list[float]:
    """The largest intersection over union of each box with another one; 0 for a single box."""
    edges = np.array([(box.left, box.top, box.right, box.bottom) for box in boxes], dtype=float)
    low = np.maximum(edges[:, None, :2], edges[None, :, :2])
    high = np.minimum(edges[:, None, 2:], edges[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = (edges[:, 2:] - edges[:, :2]).prod(axis=1)
    overlaps = common / (areas[:, None] + areas[None, :] - common)
    np.fill_diagonal(overlaps, 0)
    return overlaps.max(axis=1).tolist()


def split_track(track: Sequence[Candidate], most: int) -> list[list[Candidate]]:
    """Divide a track into at most `most` parts of similar length, in order; 0 for no limit."""
    count = min(most or len(track), len(track))
    edges = [len(track) * part // count for part in range(count + 1)]
    return [list(track[a:b]) for a, b in zip(edges, edges[1:], strict=False)]


def sharpness(pixels: np.ndarray) -> float:
    """Variance of the Laplacian (4 neighbors) of the gray values 0..255 of an image [H, W, 3]."""
    gray = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    center = gray[1:-1, 1:-1]
    if center.size == 0:
        return 0.0
    neighbors = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float((neighbors - 4 * center).var(dtype=np.float64))


def describe(dropped: Mapping[str, int]) -> str:
    """The dropped boxes in one sentence, or ""."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
