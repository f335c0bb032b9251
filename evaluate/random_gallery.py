"""Protocols with a random gallery: single-shot (CUHK03) and one image per identity (VehicleID).

Every trial is seeded, and the scores of all trials are returned: report their mean and standard
deviation (`summarize_trials`).
Letters: Q queries, G gallery entries, V valid queries, I identities of the gallery.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .inputs import (
    as_array,
    check_choice,
    check_distances,
    check_ids,
    check_max_rank,
    check_one_id_array,
    check_positive_int,
)
from .ranking import AVERAGE_PRECISIONS, RankScores, find_matches, scores_from_ranks
from .reference import JUNK_PID
from .retrieval import evaluate_features


@dataclass(frozen=True, eq=False)
class TrialSummary:
    """Means over trials, and sample standard deviations (0 for a single trial).

    Attributes:
        cmc, cmc_std: float64 [max_rank].
    """

    cmc: np.ndarray
    cmc_std: np.ndarray
    mAP: float
    mAP_std: float
    mINP: float
    mINP_std: float
    num_trials: int


def summarize_trials(trials: tuple[RankScores, ...]) -> TrialSummary:
    """Means and standard deviations of the scores of several trials."""
    cmc = np.stack([scores.cmc for scores in trials])
    aps = np.array([scores.mAP for scores in trials])
    inps = np.array([scores.mINP for scores in trials])
    ddof = min(1, len(trials) - 1)
    return TrialSummary(
        cmc=cmc.mean(axis=0),
        cmc_std=cmc.std(axis=0, ddof=ddof),
        mAP=float(aps.mean()),
        mAP_std=float(aps.std(ddof=ddof)),
        mINP=float(inps.mean()),
        mINP_std=float(inps.std(ddof=ddof)),
        num_trials=len(trials),
    )


def single_shot_metrics(
    distances,
    query_pids,
    gallery_pids,
    query_camids,
    gallery_camids,
    *,
    num_trials: int = 10,
    seed: int = 0,
    max_rank: int = 50,
) -> tuple[RankScores, ...]:
    """Scores of `num_trials` random galleries with one image per identity (the CUHK03 rule).

    In each trial, every gallery image gets a random priority. Each identity shows its first image,
    but a query's own identity shows the first one that is not excluded for the query. So every
    query has exactly one match, and AP = INP = 1 / rank.

    Args:
        distances, query_pids, gallery_pids, query_camids, gallery_camids: as in `rank_metrics`.

    Raises:
        ValueError: one sentence about the first invalid argument.
    """
    check_positive_int(num_trials, "num_trials")
    check_max_rank(max_rank)
    distances = check_distances(distances)
    if not np.isfinite(distances).all():
        raise ValueError("distances contain NaN or infinity and cannot be ranked.")
    ids = check_ids(query_pids, gallery_pids, query_camids, gallery_camids, *distances.shape)
    matches = find_matches(ids)
    one_match_each = replace(matches, starts=np.arange(len(matches.queries) + 1))
    rows = distances[matches.queries]
    real = np.flatnonzero(ids.gallery_pids != JUNK_PID)
    trials = []
    for generator in _generators(seed, num_trials):
        priority = generator.permutation(distances.shape[1])
        # [V]
        own = first_by_priority(priority, matches.columns, matches.starts)
        by_pid = real[np.lexsort((priority[real], ids.gallery_pids[real]))]
        first_of_pid = np.unique(ids.gallery_pids[by_pid], return_index=True)[1]
        # [I]
        images = np.sort(by_pid[first_of_pid])
        ranks = count_single_shot(rows, own, images, ids.gallery_pids)
        trials.append(scores_from_ranks(ranks, one_match_each, max_rank))
    return tuple(trials)


def first_by_priority(priority: np.ndarray, columns: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """For each sparse row, the column with the lowest priority value [V]."""
    lowest = np.minimum.reduceat(priority[columns], starts[:-1])
    image_at = np.argsort(priority)
    return image_at[lowest]


def count_single_shot(
    rows: np.ndarray, own: np.ndarray, images: np.ndarray, gallery_pids: np.ndarray
) -> np.ndarray:
    """0-based rank of each query's own image among the images of the other identities [V]."""
    ranks = np.empty(len(own), np.int64)
    for v, (row, column) in enumerate(zip(rows, own, strict=True)):
        others = images[gallery_pids[images] != gallery_pids[column]]
        nearer = (row[others] < row[column]) | ((row[others] == row[column]) & (others < column))
        ranks[v] = np.count_nonzero(nearer)
    return ranks


def random_gallery_splits(
    pids, *, num_trials: int = 10, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (query indices, gallery indices), both rising (the VehicleID rule).

    The gallery is one random image of each identity; all other images are queries. An identity
    with a single image is only in the gallery.
    """
    pids = check_one_id_array(pids, "pids", len(as_array(pids, "pids")))
    check_positive_int(num_trials, "num_trials")
    for generator in _generators(seed, num_trials):
        shuffled = generator.permutation(len(pids))
        gallery = np.sort(shuffled[np.unique(pids[shuffled], return_index=True)[1]])
        yield np.setdiff1d(np.arange(len(pids)), gallery), gallery


def evaluate_random_galleries(
    features,
    pids,
    *,
    num_trials: int = 10,
    seed: int = 0,
    metric: str = "cosine",
    max_rank: int = 50,
    average_precision: str = "mean",
    memory_gib: float | None = None,
) -> tuple[RankScores, ...]:
    """Scores of features [N, D] for each of `random_gallery_splits`; cameras are ignored."""
    check_choice(average_precision, "average_precision", AVERAGE_PRECISIONS)
    pids = check_one_id_array(pids, "pids", len(features))
    return tuple(
        evaluate_features(
            features[query],
            features[gallery],
            pids[query],
            pids[gallery],
            np.zeros(len(query), np.int64),
            np.ones(len(gallery), np.int64),
            metric=metric,
            max_rank=max_rank,
            average_precision=average_precision,
            memory_gib=memory_gib,
        )
        for query, gallery in random_gallery_splits(pids, num_trials=num_trials, seed=seed)
    )


def _generators(seed: int, num_trials: int) -> Iterator[np.random.Generator]:
    """One independent generator per trial: the n-th trial does not depend on their number."""
    for trial in range(num_trials):
        yield np.random.default_rng((seed, trial))
