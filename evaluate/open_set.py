"""Open-set identification: queries that are not in the gallery have to be detected.

A query is mated if its identity is in the gallery under another camera. At a threshold, a mated
query is identified if its nearest gallery entry has its identity and is at most that far away
(TPIR). An unmated query raises a false alarm if any entry is at most that far away (FPIR). Terms
of ISO/IEC 19795-1.
Letters: Q queries, G gallery entries, T rates, R resamples.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .distances import distance_blocks
from .inputs import (
    QueryGallery,
    check_feature_pair,
    check_ids,
    check_positive_int,
    check_rates,
    shown,
)
from .reference import label_pairs
from .verification import threshold_at


@dataclass(frozen=True, eq=False)
class NearestEntries:
    """The nearest gallery entry of every query.

    Attributes:
        distances: float32 [Q], to the nearest entry that is not excluded.
        correct: bool [Q], whether this entry has the query's identity.
        mated: bool [Q], whether any entry has it.
    """

    distances: np.ndarray
    correct: np.ndarray
    mated: np.ndarray


@dataclass(frozen=True, eq=False)
class IdentificationScores:
    """One operating point for each false positive identification rate.

    Attributes:
        fpir: float64 [T], the requested rates.
        tpir: float64 [T].
        low, high: float64 [T], confidence interval of tpir from resampled queries.
        threshold: float64 [T].
        num_mated, num_unmated: numbers of queries.
    """

    fpir: np.ndarray
    tpir: np.ndarray
    low: np.ndarray
    high: np.ndarray
    threshold: np.ndarray
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

    Gallery entries of the query's identity and camera are excluded, and so is junk (pid -1).

    Raises:
        ValueError: one sentence about the first invalid argument.
    """
    ids = (query_pids, gallery_pids, query_camids, gallery_camids)
    sets = QueryGallery(query, gallery, *ids)
    nearest = nearest_entries(sets, metric=metric, memory_gib=memory_gib)
    return rates_of_nearest(
        nearest, fpirs=fpirs, confidence=confidence, num_resamples=num_resamples, seed=seed
    )


def nearest_entries(
    sets: QueryGallery, *, metric: str = "cosine", memory_gib: float | None = None
) -> NearestEntries:
    """The nearest gallery entry of every query; of equally near ones, the first."""
    query, gallery = check_feature_pair(sets.query, sets.gallery)
    ids = check_ids(*sets.ids, len(query), len(gallery))
    pids, all_pids, camids, all_camids = ids.to(query.device)
    distances, correct, mated = [], [], []
    for first, last, block in distance_blocks(
        query, gallery, metric=metric, memory_gib=memory_gib, copies=5
    ):
        is_match, is_excluded = label_pairs(
            pids[first:last, None], all_pids, camids[first:last, None], all_camids
        )
        values, columns = block.masked_fill_(is_excluded, float("inf")).min(dim=1)
        distances.append(values)
        correct.append(is_match.gather(1, columns[:, None])[:, 0])
        mated.append(is_match.any(dim=1))
    return NearestEntries(
        *(torch.cat(parts).cpu().numpy() for parts in (distances, correct, mated))
    )


def rates_of_nearest(
    nearest: NearestEntries,
    *,
    fpirs: tuple[float, ...] = (0.01, 0.1),
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> IdentificationScores:
    """TPIR at FPIR with percentile intervals.

    Mated and unmated queries are resampled separately, and the threshold is found again in each
    resample, so that its uncertainty counts.
    """
    fpirs = check_rates(fpirs)
    check_positive_int(num_resamples, "num_resamples")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be a number between 0 and 1, found {shown(confidence)}.")
    unmated = nearest.distances[~nearest.mated]
    mated = np.where(nearest.correct, nearest.distances, np.inf)[nearest.mated]
    for name, queries, remedy in (
        ("mated", mated, "identities shared with the gallery"),
        ("unmated", unmated, "identities missing in the gallery"),
    ):
        if len(queries) == 0:
            raise ValueError(
                f"Open-set identification needs {name} queries, and there are none: add {remedy}."
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
    """(TPIR, threshold) at each rate; a wrong nearest entry has an infinite distance in `mated`."""
    unmated, mated = np.sort(unmated), np.sort(mated)
    thresholds = np.array([threshold_at(unmated, rate, len(unmated)) for rate in fpirs])
    # With an infinite threshold, wrong nearest entries must not count as identified.
    finite = np.minimum(thresholds, np.finfo(np.float32).max)
    return np.searchsorted(mated, finite, side="right") / len(mated), thresholds
