"""Held-out training identities, to choose checkpoints without using the test set."""

from dataclasses import replace

import numpy as np
from ember_reid.data.records import CROSS_CAMERA, Record, Splits


def hold_out(splits: Splits, fraction: float, *, seed: int = 0) -> tuple[Splits, Splits]:
    """Divide the training identities into those to train on and a test set of held-out ones.

    Of every held-out identity one record per camera is a query (one in total, unless the protocol
    is cross-camera); the others are the gallery. Training identities keep their numbers here.

    Args:
        splits: the dataset.
        fraction: of the training identities to hold out.
        seed: determines which ones.

    Returns:
        The dataset without the held-out identities, and the test set.

    Raises:
        ValueError: if no identity would be left to train on or to hold out.
    """
    pids = sorted({record.pid for record in splits.train})
    number = round(fraction * len(pids))
    if not 0 < number < len(pids):
        raise ValueError(
            f"TEST.VALIDATION {fraction} holds out {number} of the {len(pids)} training identities"
            f" of {splits.name}; it must leave at least one to hold out and one to train on"
        )
    rng = np.random.default_rng([seed, len(pids)])
    held = {pids[i] for i in rng.choice(len(pids), number, replace=False)}
    train = tuple(record for record in splits.train if record.pid not in held)
    query: list[Record] = []
    gallery: list[Record] = []
    chosen: set[tuple[int, int]] = set()
    validation = [record for record in splits.train if record.pid in held]
    for i in rng.permutation(len(validation)):
        record = validation[i]
        key = (record.pid, record.camid if splits.protocol == CROSS_CAMERA else 0)
        (gallery if key in chosen else query).append(record)
        chosen.add(key)
    # Queries are also in the gallery. Otherwise, an identity with one record per camera would have
    # no match.
    if splits.protocol == CROSS_CAMERA:
        gallery.extend(query)
    held_out = Splits(
        (), tuple(query), tuple(gallery), splits.protocol, f"{splits.name}-validation"
    )
    return replace(splits, train=train), held_out
