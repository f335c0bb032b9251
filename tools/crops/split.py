"""Train, query and gallery by identity and camera."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

NO_IDENTITY = "-1"


def split_crops(
    pids: Sequence[str], cameras: Sequence[str], *, test_share: float, seed: int
) -> list[str]:
    """The split of each crop: train, query or gallery.

    Identities in at least two cameras can be tested (with one camera: identities with at least two
    crops). A random share of them is; the others are for training. Of a test identity, one crop
    per camera is a query, and the others are in the gallery. Crops without an identity are in the
    gallery, as images to ignore.

    Args:
        pids: identities; `NO_IDENTITY` if unknown.
        cameras: of each crop.
        test_share: share of the identities that can be tested.
        seed: of the random choice.
    """
    crops: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, (pid, camera) in enumerate(zip(pids, cameras, strict=True)):
        crops[pid][camera].append(position)
    several = len(set(cameras)) > 1
    eligible = sorted(
        pid
        for pid, by_camera in crops.items()
        if pid != NO_IDENTITY
        and (len(by_camera) > 1 if several else sum(map(len, by_camera.values())) > 1)
    )
    count = round(test_share * len(eligible))
    if test_share > 0 and eligible:
        count = max(count, 1)
    order = np.random.default_rng(seed).permutation(len(eligible))
    tested = {eligible[position] for position in order[:count].tolist()}
    splits = ["gallery" if pid == NO_IDENTITY or pid in tested else "train" for pid in pids]
    for pid in tested:
        for position in _queries(crops[pid]):
            splits[position] = "query"
    return splits


def _queries(by_camera: dict[str, list[int]]) -> list[int]:
    """The middle crop of every camera with several crops, or else the crop of the first camera."""
    ordered = [by_camera[camera] for camera in sorted(by_camera)]
    found = [crops[len(crops) // 2] for crops in ordered if len(crops) > 1]
    return found or [ordered[0][0]]
