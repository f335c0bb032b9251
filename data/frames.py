"""Choose the frames of a tracklet, or the views of an identity, for a sample."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ember_reid.data.records import Record

SAMPLINGS = ("even", "chunk", "multiview", "multiview-cameras")


def choose_frames(
    num_frames: int, num_slots: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Choose `num_slots` frames of a tracklet of `num_frames`: int64 [num_slots], in order.

    The tracklet is padded with its last frame and cut into `num_slots` chunks of equal length. One
    frame is drawn from each chunk, or the first one is taken without `rng` (VKD, Porrello et al.
    2020, arXiv 2007.04174).
    """
    if num_frames < 1:
        raise ValueError("a tracklet must have at least one frame")
    # Frames per chunk.
    length = max(-(-num_frames // num_slots), 1)
    chunks = np.minimum(np.arange(num_slots * length), num_frames - 1).reshape(num_slots, length)
    if rng is None:
        return chunks[:, 0]
    return chunks[np.arange(num_slots), rng.integers(length, size=num_slots)]


def choose_views(
    records: Sequence[Record],
    num_slots: int,
    rng: np.random.Generator,
    *,
    spread_cameras: bool = False,
) -> list[Path]:
    """Choose `num_slots` views of one identity: random frames of its records in random order.

    The records are repeated if there are fewer than slots.

    Args:
        records: all training records of the identity.
        num_slots: views.
        rng: the random generator.
        spread_cameras: take cameras in turn, so that no camera occurs twice before each occurred
            once. VKD does not do this.
    """
    order = rng.permutation(len(records))
    if spread_cameras:
        order = _camera_turns(records, order)
    views = []
    for slot in range(num_slots):
        paths = records[order[slot % len(order)]].paths
        views.append(paths[rng.integers(len(paths))])
    return views


def _camera_turns(records: Sequence[Record], order: np.ndarray) -> np.ndarray:
    """Reorder: the first record of every camera, then the second of every camera, and so on."""
    seen: dict[int, int] = {}
    turns = []
    for index in order:
        camid = records[index].camid
        turns.append(seen.get(camid, 0))
        seen[camid] = turns[-1] + 1
    return order[np.argsort(turns, kind="stable")]
