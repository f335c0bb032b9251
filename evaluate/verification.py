"""Verification, same identity or not: the share of same pairs accepted at a given share of false accepts.

A pair is accepted when its distance is at most the threshold. TPR is the share of same-identity pairs
accepted, FPR the share of different-identity pairs accepted. (FastReID's "TPR@FPR" counts rejections: other
numbers.)
Letters: Q queries, G gallery entries, T rates asked for.
"""

from typing import NamedTuple

import numpy as np
import torch

from .checks import check_choice, check_feature_pair, check_ids
from .distances import distance_blocks
from .fast.tiles import METRICS


class VerificationScores(NamedTuple):
    """One operating point per false positive rate asked for."""

    fpr: np.ndarray  # float64 [T]        as asked for
    tpr: np.ndarray  # float64 [T]        share of same-identity pairs at or below the threshold
    threshold: (
        np.ndarray
    )  # float64 [T]  the largest distance that keeps the rate; -inf where not one pair may pass
    num_same: int
    num_different: int


def verification_scores(
    query,
    gallery,
    query_pids,
    gallery_pids,
    query_camids,
    gallery_camids,
    *,
    metric: str = "cosine",
    fprs: tuple[float, ...] = (1e-4, 1e-3, 1e-2),
    memory_gib: float | None = None,
) -> VerificationScores:
    """TPR at FPR over all pairs of a query and a gallery entry, by exact quantiles, in tiles.

    Pairs of the same identity and camera are left out, as is junk (pid -1). Thresholds are in the metric's
    unit: 1 - cosine, or squared Euclidean. Besides the tiles, the largest rate's share of all different pairs
    is held.
    Raises: ValueError with one sentence on the first thing that is wrong.
    """
    check_choice(metric, "metric", METRICS)
    fprs = _check_rates(fprs)
    query, gallery = check_feature_pair(query, gallery)
    ids = check_pair_ids(
        query_pids, gallery_pids, query_camids, gallery_camids, len(query), len(gallery)
    )
    ids = tuple(torch.from_numpy(array).to(query.device) for array in ids)

    num_same, num_different = count_pairs(*ids)
    if num_same == 0 or num_different == 0:
        kind = "same" if num_same == 0 else "different"
        raise ValueError(
            f"There is no pair of {kind} identities to verify: rates of acceptance are not defined."
        )
    wanted = (
        int(np.floor(max(fprs) * num_different)) + 1
    )  # the first that must not pass is needed, too
    same, nearest = [], SmallestValues(wanted)
    for first, last, distances in distance_blocks(
        query, gallery, metric=metric, memory_gib=memory_gib, copies=6
    ):
        is_same, is_different = pair_masks(ids, first, last)
        same.append(distances[is_same].cpu().numpy())
        nearest.add(distances[is_different & (distances <= nearest.limit)].cpu().numpy())
    thresholds = np.array([threshold_at(nearest.sorted(), rate, num_different) for rate in fprs])
    same = np.sort(np.concatenate(same))
    tpr = np.searchsorted(same, thresholds, side="right") / num_same
    return VerificationScores(np.array(fprs), tpr, thresholds, num_same, num_different)


def threshold_at(different: np.ndarray, rate: float, num_different: int) -> float:
    """The largest float32 distance that at most `rate` of all different pairs reach.

    `different` holds the smallest of their distances, sorted, at least one more than may pass.
    """
    allowed = int(np.floor(rate * num_different))
    if allowed >= num_different:
        return float("inf")
    return float(np.nextafter(np.float32(different[allowed]), np.float32(-np.inf)))


class SmallestValues:
    """The `count` smallest of a stream of values, in at most about three times that much memory."""

    def __init__(self, count: int):
        self.count, self.held, self.size = count, [], 0
        self.limit = float("inf")  # values above it need not be added

    def add(self, values: np.ndarray) -> None:
        self.held.append(values)
        self.size += len(values)
        if self.size > 2 * self.count + 65536:
            kept = np.partition(np.concatenate(self.held), self.count - 1)[: self.count]
            self.held, self.size, self.limit = [kept], self.count, float(kept.max())

    def sorted(self) -> np.ndarray:
        return np.sort(np.concatenate(self.held))[: self.count]


def check_pair_ids(
    query_pids, gallery_pids, query_camids, gallery_camids, num_query: int, num_gallery: int
):
    """The four id arrays as int64, in the order (query_pids, gallery_pids, query_camids, gallery_camids)."""
    return (
        check_ids(query_pids, "query_pids", num_query),
        check_ids(gallery_pids, "gallery_pids", num_gallery),
        check_ids(query_camids, "query_camids", num_query),
        check_ids(gallery_camids, "gallery_camids", num_gallery),
    )


def pair_masks(
    ids: tuple[torch.Tensor, ...], first: int, last: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which pairs of queries first..last-1 and the gallery are of the same, of different ids: bool [b, G]."""
    query_pids, gallery_pids, query_camids, gallery_camids = ids
    known = (gallery_pids != -1) & (query_pids[first:last, None] != -1)
    same = gallery_pids == query_pids[first:last, None]
    other_camera = gallery_camids != query_camids[first:last, None]
    return same & other_camera & known, ~same & known


def count_pairs(query_pids, gallery_pids, query_camids, gallery_camids) -> tuple[int, int]:
    """How many pairs are of the same identity under two cameras, and how many of different identities."""
    query_pids, query_camids = (ids[query_pids != -1] for ids in (query_pids, query_camids))
    gallery_pids, gallery_camids = (
        ids[gallery_pids != -1] for ids in (gallery_pids, gallery_camids)
    )
    num_pairs = len(query_pids) * len(gallery_pids)
    same = _count_equal(query_pids[:, None], gallery_pids[:, None])
    both = (
        torch.stack((query_pids, query_camids), dim=1),
        torch.stack((gallery_pids, gallery_camids), dim=1),
    )
    return same - _count_equal(*both), num_pairs - same


def _count_equal(left: torch.Tensor, right: torch.Tensor) -> int:
    """How many pairs of rows are equal, int64 [Q, c] and [G, c]."""
    _, keys = torch.unique(torch.cat((left, right)), dim=0, return_inverse=True)
    num = int(keys.max()) + 1 if len(keys) else 0
    counts = (
        torch.bincount(side, minlength=num) for side in (keys[: len(left)], keys[len(left) :])
    )
    return int(torch.mul(*counts).sum())


def _check_rates(rates) -> tuple[float, ...]:
    rates = tuple(rates)
    if not rates or not all(
        isinstance(rate, int | float | np.number) and 0 < rate <= 1 for rate in rates
    ):
        raise ValueError(f"Rates must be numbers above 0 and at most 1, found {rates!r}.")
    return rates
