"""Open-set identification: some queries show nobody of the gallery, and the system should say so.

A query is mated when its identity is in the gallery under another camera. At a threshold, a mated query is
identified when its nearest gallery entry is of its identity and at most that far (TPIR), and an unmated one
raises a false alarm when anything is at most that far (FPIR). Terms of ISO/IEC 19795-1.
Letters: Q queries, G gallery entries, T rates asked for, R resamples.
"""

from typing import NamedTuple

import numpy as np
import torch

from .checks import check_feature_pair, check_positive_int
from .distances import distance_blocks
from .verification import _check_rates, check_pair_ids, threshold_at


class NearestEntries(NamedTuple):
    """What open-set identification needs to know of every query."""

    distances: np.ndarray  # float32 [Q]  to the nearest gallery entry that is not left out
    correct: np.ndarray  # bool [Q]       whether that entry is of the query's identity
    mated: np.ndarray  # bool [Q]         whether any entry is


class IdentificationScores(NamedTuple):
    """One operating point per false positive identification rate, with intervals from resampled queries."""

    fpir: np.ndarray  # float64 [T]  as asked for
    tpir: np.ndarray  # float64 [T]
    low: np.ndarray  # float64 [T]   bounds of the confidence interval of tpir
    high: np.ndarray  # float64 [T]
    threshold: np.ndarray  # float64 [T]
    num_mated: int
    num_unmated: int


def identification_scores(
    query,
    gallery,
    query_pids,
    gallery_pids,
    query_camids,
    gallery_camids,
    *,
    metric: str = "cosine",
    fpirs: tuple[float, ...] = (0.01, 0.1),
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
    memory_gib: float | None = None,
) -> IdentificationScores:
    """TPIR at FPIR with bootstrap confidence intervals, from features, in tiles.

    Gallery entries of the query's identity and camera are left out, as is junk (pid -1).
    Raises: ValueError with one sentence on the first thing that is wrong.
    """
    nearest = nearest_entries(
        query,
        gallery,
        query_pids,
        gallery_pids,
        query_camids,
        gallery_camids,
        metric=metric,
        memory_gib=memory_gib,
    )
    return rates_of_nearest(
        nearest, fpirs=fpirs, confidence=confidence, num_resamples=num_resamples, seed=seed
    )


def nearest_entries(
    query,
    gallery,
    query_pids,
    gallery_pids,
    query_camids,
    gallery_camids,
    *,
    metric="cosine",
    memory_gib=None,
) -> NearestEntries:
    """The nearest gallery entry of every query; of equally near ones, the first."""
    query, gallery = check_feature_pair(query, gallery)
    ids = check_pair_ids(
        query_pids, gallery_pids, query_camids, gallery_camids, len(query), len(gallery)
    )
    query_pids, gallery_pids, query_camids, gallery_camids = (
        torch.from_numpy(a).to(query.device) for a in ids
    )
    found = []
    for first, last, distances in distance_blocks(
        query, gallery, metric=metric, memory_gib=memory_gib, copies=5
    ):
        same = gallery_pids == query_pids[first:last, None]
        left_out = (same & (gallery_camids == query_camids[first:last, None])) | (
            gallery_pids == -1
        )
        distances[left_out] = float("inf")
        values, columns = distances.min(dim=1)
        found.append(
            (values, same.gather(1, columns[:, None])[:, 0], (same & ~left_out).any(dim=1))
        )
    distances, correct, mated = (
        torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True)
    )
    return NearestEntries(distances, correct & mated, mated)


def rates_of_nearest(
    nearest: NearestEntries,
    *,
    fpirs: tuple[float, ...] = (0.01, 0.1),
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> IdentificationScores:
    """TPIR at FPIR; mated and unmated queries are resampled apart, so the threshold's uncertainty counts."""
    fpirs = _check_rates(fpirs)
    check_positive_int(num_resamples, "num_resamples")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be a number between 0 and 1, found {confidence!r}.")
    unmated = nearest.distances[~nearest.mated]
    mated = np.where(nearest.correct, nearest.distances, np.inf)[nearest.mated]
    for name, queries, cure in (
        ("mated", mated, "identities shared with the gallery"),
        ("unmated", unmated, "identities missing in the gallery"),
    ):
        if len(queries) == 0:
            raise ValueError(
                f"Open-set identification needs {name} queries, and there are none: add {cure}."
            )
    tpir, threshold = _rates(mated, unmated, fpirs)
    generator = np.random.default_rng(seed)
    resampled = [
        _rates(
            mated[generator.integers(len(mated), size=len(mated))],
            unmated[generator.integers(len(unmated), size=len(unmated))],
            fpirs,
        )[0]
        for _ in range(num_resamples)
    ]
    low, high = np.quantile(resampled, ((1 - confidence) / 2, (1 + confidence) / 2), axis=0)
    return IdentificationScores(
        np.array(fpirs), tpir, low, high, threshold, len(mated), len(unmated)
    )


def _rates(
    mated: np.ndarray, unmated: np.ndarray, fpirs: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    unmated, mated = np.sort(unmated), np.sort(mated)
    thresholds = np.array([threshold_at(unmated, rate, len(unmated)) for rate in fpirs])
    finite = np.minimum(
        thresholds, np.finfo(np.float32).max
    )  # a wrong nearest entry, at infinity, is no hit
    return np.searchsorted(mated, finite, side="right") / len(mated), thresholds
