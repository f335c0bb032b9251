"""Protocols that draw a gallery at random: single-shot (CUHK03) and one image per identity (VehicleID).

Every draw is seeded, and all draws are returned: report their mean with its spread (`summarize_draws`).
Letters: Q queries, G gallery entries, I identities of the gallery.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .checks import as_array, check_choice, check_distances, check_ids, check_positive_int
from .matches import find_matches
from .ranking import AVERAGE_PRECISIONS, RankScores, scores_from_ranks
from .retrieval import evaluate_features


class DrawSummary(NamedTuple):
    """Mean over draws, and the standard deviation between them (of the sample; 0 for a single draw)."""

    cmc: np.ndarray  # float64 [max_rank]
    cmc_spread: np.ndarray
    mAP: float
    mAP_spread: float
    mINP: float
    mINP_spread: float
    num_draws: int


def summarize_draws(draws: tuple[RankScores, ...]) -> DrawSummary:
    """Means and standard deviations of the scores of several draws."""
    cmc = np.stack([scores.cmc for scores in draws])
    maps, minps = (
        np.array([scores.mAP for scores in draws]),
        np.array([scores.mINP for scores in draws]),
    )
    ddof = min(1, len(draws) - 1)
    return DrawSummary(
        cmc.mean(axis=0),
        cmc.std(axis=0, ddof=ddof),
        float(maps.mean()),
        float(maps.std(ddof=ddof)),
        float(minps.mean()),
        float(minps.std(ddof=ddof)),
        len(draws),
    )


def single_shot_metrics(
    distances,
    query_pids,
    gallery_pids,
    query_camids,
    gallery_camids,
    *,
    num_draws: int = 10,
    seed: int = 0,
    max_rank: int = 50,
) -> tuple[RankScores, ...]:
    """Scores with one gallery image an identity, drawn anew `num_draws` times (the CUHK03 rule).

    In a draw every gallery image gets a random place in a queue; each identity shows its first image, and a
    query's own identity shows the first that is not of the query's camera. So every query has one match, AP =
    INP = 1 / rank.
    Args: as `rank_metrics`. Raises: ValueError with one sentence on the first thing that is wrong.
    """
    check_positive_int(num_draws, "num_draws")
    check_positive_int(max_rank, "max_rank")
    distances = check_distances(distances)
    num_query, num_gallery = distances.shape
    gallery_pids = check_ids(gallery_pids, "gallery_pids", num_gallery)
    matches = find_matches(
        check_ids(query_pids, "query_pids", num_query),
        gallery_pids,
        check_ids(query_camids, "query_camids", num_query),
        check_ids(gallery_camids, "gallery_camids", num_gallery),
    )
    one_each = matches._replace(starts=np.arange(len(matches.queries) + 1))
    rows = distances[matches.queries]
    real = np.flatnonzero(gallery_pids != -1)
    draws = []
    for generator in _generators(seed, num_draws):
        queue = generator.permutation(num_gallery)  # place of each gallery image
        own = first_in_queue(queue, matches.columns, matches.starts)  # [V]
        by_pid = real[np.lexsort((queue[real], gallery_pids[real]))]
        shown = np.sort(by_pid[np.unique(gallery_pids[by_pid], return_index=True)[1]])  # [I]
        ranks = count_single_shot(rows, own, shown, gallery_pids)
        draws.append(scores_from_ranks(ranks, one_each, len(shown), max_rank))
    return tuple(draws)


def first_in_queue(queue: np.ndarray, columns: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Of the columns of each sparse row, the one with the lowest place in the queue [V]."""
    lowest = np.minimum.reduceat(queue[columns], starts[:-1])
    image_at = np.argsort(queue)
    return image_at[lowest]


def count_single_shot(
    rows: np.ndarray, own: np.ndarray, shown: np.ndarray, gallery_pids: np.ndarray
) -> np.ndarray:
    """0-based rank of each query's own image among the shown images of the other identities [V]."""
    ranks = np.empty(len(own), np.int64)
    for v, (row, column) in enumerate(zip(rows, own, strict=True)):
        others = shown[gallery_pids[shown] != gallery_pids[column]]
        nearer = (row[others] < row[column]) | ((row[others] == row[column]) & (others < column))
        ranks[v] = np.count_nonzero(nearer)
    return ranks


def draw_one_per_identity(
    pids, *, num_draws: int = 10, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (query indices, gallery indices), both rising: one random image of each identity is the gallery.

    The VehicleID rule. An identity with a single image is in the gallery only.
    """
    pids = check_ids(pids, "pids", len(as_array(pids, "pids")))
    check_positive_int(num_draws, "num_draws")
    for generator in _generators(seed, num_draws):
        shuffled = generator.permutation(len(pids))
        gallery = np.sort(shuffled[np.unique(pids[shuffled], return_index=True)[1]])
        yield np.setdiff1d(np.arange(len(pids)), gallery), gallery


def evaluate_drawn(
    features,
    pids,
    *,
    num_draws: int = 10,
    seed: int = 0,
    metric: str = "cosine",
    max_rank: int = 50,
    average_precision: str = "mean",
    memory_gib: float | None = None,
) -> tuple[RankScores, ...]:
    """Scores of features [N, D] under each draw of `draw_one_per_identity`; cameras play no part."""
    check_choice(average_precision, "average_precision", AVERAGE_PRECISIONS)
    pids = check_ids(pids, "pids", len(features))
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
        for query, gallery in draw_one_per_identity(pids, num_draws=num_draws, seed=seed)
    )


def _generators(seed: int, num_draws: int) -> Iterator[np.random.Generator]:
    """An independent generator per draw: the n-th draw is the same however many are asked for."""
    for draw in range(num_draws):
        yield np.random.default_rng((seed, draw))
