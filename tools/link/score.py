"""Scores of linked identities against the column pid of the list."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from ember_reid.evaluate import identity_scores, pair_scores
from ember_reid.evaluate.identity_scores import NO_LABEL
from ember_reid.tools.crops.split import NO_IDENTITY
from ember_reid.tools.link.tracklets import CropList, Tracklet


def score_links(
    crops: CropList, tracklets: Sequence[Tracklet], labels: np.ndarray
) -> dict[str, dict[str, float]]:
    """IDF1 over crops, and precision, recall and F1 over pairs of tracklets.

    Crops without an identity do not count. Crops that were left out count as missed. The true
    identity of a tracklet is the most frequent one of its crops.

    Args:
        crops: the list with the true identities.
        tracklets: N tracklets.
        labels: int [N], the linked identities.

    Raises:
        ValueError: the list has no true identities.
    """
    if "pid" not in crops.columns:
        raise ValueError(f"{crops.path} has no column pid: --score needs the true identities")
    names = [row["pid"] for row in crops.rows]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    numbers |= dict.fromkeys(("", NO_IDENTITY), NO_LABEL)
    true = np.array([numbers[name] for name in names], np.int64)
    if (true == NO_LABEL).all():
        raise ValueError(f"{crops.path} has no identities in the column pid, as --score needs")
    predicted = np.full(len(true), NO_LABEL)
    for tracklet, label in zip(tracklets, labels.tolist(), strict=True):
        predicted[list(tracklet.rows)] = label
    predicted[true == NO_LABEL] = NO_LABEL
    majority = [
        Counter(true[list(tracklet.rows)].tolist()).most_common(1)[0][0] for tracklet in tracklets
    ]
    return {
        "detections": asdict(identity_scores(true, predicted)),
        "pairs": asdict(pair_scores(np.array(majority, np.int64), labels)),
    }
