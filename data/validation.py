"""Held-out training identities, to choose checkpoints on without looking at the test set."""

from dataclasses import replace

import numpy as np
from ember_reid.data.records import CROSS_CAMERA, Record, Splits


def hold_out(splits: Splits, fraction: float, *, seed: int = 0) -> tuple[Splits, Splits]:
    """Split off `fraction` of the training identities: the dataset without them, and a test set made of them.

    Of every held-out identity one record per camera is a query (one in all, unless the protocol is across
    cameras); the others are the gallery. Which ones is decided by `seed`. Training identities are not
    numbered anew here. Raises ValueError when the fraction leaves no identity to train on or to hold out.
    """
    pids = sorted({record.pid for record in splits.train})
    number = round(fraction * len(pids))
    if not 0 < number < len(pids):
        raise ValueError(
            f"TEST.VALIDATION {fraction} holds out {number} of the {len(pids)} training identities of"
            f" {splits.name}; it must leave at least one to hold out and one to train on"
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
    # Queries are in the gallery too: an identity with one record per camera would have no match otherwise.
    if splits.protocol == CROSS_CAMERA:
        gallery.extend(query)
    held_out = Splits(
        (), tuple(query), tuple(gallery), splits.protocol, f"{splits.name}-validation"
    )
    return replace(splits, train=train), held_out
