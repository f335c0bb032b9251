"""Which frames of a tracklet, or which views of an identity, make up a sample."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ember_reid.data.records import Record

SAMPLINGS = ("even", "chunk", "multiview", "multiview-cameras")


def choose_frames(
    num_frames: int, num_slots: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Spread `num_slots` frames over a tracklet of `num_frames`: int64 [num_slots], in temporal order.

    A tracklet shorter than the slots repeats its last frame. A longer one is cut into `num_slots` chunks of
    equal length, the list padded with the last frame; one frame is drawn from each chunk, or without `rng`
    its first one (VKD, Porrello et al. 2020, arXiv 2007.04174).
    """
    if num_frames < 1:
        raise ValueError("a tracklet without frames has nothing to choose from")
    length = max(-(-num_frames // num_slots), 1)  # frames per chunk
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
    """`num_slots` views of one identity: one random frame each of its records in random order, cyclically.

    `records` are all training records of the identity. With `spread_cameras` the cameras take turns, so that
    no camera is seen twice before each was seen once; VKD leaves that to chance.
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
    """Reorder so that the cameras take turns: all first records of the cameras, then all second ones, ..."""
    seen: dict[int, int] = {}
    turns = []
    for index in order:
        camid = records[index].camid
        turns.append(seen.get(camid, 0))
        seen[camid] = turns[-1] + 1
    return order[np.argsort(turns, kind="stable")]
