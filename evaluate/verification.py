"""Verification (same identity or not): the share of same pairs accepted at a false accept rate.

A pair is accepted if its distance is at most the threshold. TPR is the share of same-identity
pairs that are accepted, FPR the share of different-identity pairs that are accepted. (FastReID's
"TPR@FPR" counts rejections, which gives other numbers.)
Letters: Q queries, G gallery entries, b queries of a block, T rates.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .distances import distance_blocks
from .fast.tiles import METRICS
from .inputs import check_choice, check_feature_pair, check_ids, check_rates
from .reference import JUNK_PID, label_pairs

BlockIds = tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class VerificationScores:
    """One operating point for each false positive rate.

    Attributes:
        fpr: float64 [T], the requested rates.
        tpr: float64 [T], share of same-identity pairs at or below the threshold.
        threshold: float64 [T], the largest distance that keeps the rate; below all distances if
            no pair may be accepted.
        num_same, num_different: numbers of pairs.
    """

    fpr: np.ndarray
    tpr: np.ndarray
    threshold: np.ndarray
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
    """TPR at FPR over all pairs of a query and a gallery entry, with exact quantiles, in tiles.

    Pairs of the same identity and camera are excluded, and so is junk (pid -1). Thresholds are in
    the unit of the metric: 1 - cosine, or squared Euclidean. Besides the tiles, the largest rate's
    share of the different pairs is stored.

    Raises:
        ValueError: one sentence about the first invalid argument.
    """
    check_choice(metric, "metric", METRICS)
    fprs = check_rates(fprs)
    query, gallery = check_feature_pair(query, gallery)
    ids = check_ids(
        query_pids, gallery_pids, query_camids, gallery_camids, len(query), len(gallery)
    ).to(query.device)

    num_same, num_different = count_pairs(ids)
    if num_same == 0 or num_different == 0:
        kind = "same" if num_same == 0 else "different"
        raise ValueError(
            f"There is no pair of {kind} identities to verify, so acceptance rates are not defined."
        )
    # One more than may be accepted: the nearest pair that must be rejected.
    nearest = SmallestValues(int(np.floor(max(fprs) * num_different)) + 1)
    same_parts = []
    for first, last, distances in distance_blocks(
        query, gallery, metric=metric, memory_gib=memory_gib, copies=6
    ):
        is_same, is_different = label_block(ids, first, last)
        same_parts.append(distances[is_same].cpu().numpy())
        nearest.add(distances[is_different & (distances <= nearest.limit)].cpu().numpy())
    different = nearest.sorted()
    thresholds = np.array([threshold_at(different, rate, num_different) for rate in fprs])
    same = np.sort(np.concatenate(same_parts))
    tpr = np.searchsorted(same, thresholds, side="right") / num_same
    return VerificationScores(np.array(fprs), tpr, thresholds, num_same, num_different)


def threshold_at(different: np.ndarray, rate: float, num_different: int) -> float:
    """The largest float32 threshold that accepts at most `rate` of all different pairs.

    Args:
        different: the smallest distances of different pairs, sorted; at least one more than may be
            accepted.
        num_different: number of all different pairs.
    """
    allowed = int(np.floor(rate * num_different))
    if allowed >= num_different:
        return float("inf")
    return float(np.nextafter(np.float32(different[allowed]), np.float32(-np.inf)))


class SmallestValues:
    """The `count` smallest values of a stream, in at most about three times their memory."""

    def __init__(self, count: int):
        self.count = count
        # Larger values need not be added.
        self.limit = float("inf")
        self._parts: list[np.ndarray] = []
        self._size = 0

    def add(self, values: np.ndarray) -> None:
        """Add values; drop those that cannot be among the smallest."""
        self._parts.append(values)
        self._size += len(values)
        if self._size > 2 * self.count + 65536:
            values = np.concatenate(self._parts)
            smallest = np.partition(values, self.count - 1)[: self.count]
            self._parts, self._size, self.limit = [smallest], self.count, float(smallest.max())

    def sorted(self) -> np.ndarray:
        """The smallest values, rising."""
        return np.sort(np.concatenate(self._parts))[: self.count]


def label_block(ids: BlockIds, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of the queries first..last-1 and the gallery: (is_same, is_different), bool [b, G].

    Excluded pairs (see `reference.label_pairs`) and queries of unknown identity are neither.

    Args:
        ids: query_pids, gallery_pids, query_camids, gallery_camids, as tensors.
    """
    query_pids, gallery_pids, query_camids, gallery_camids = ids
    block_pids, block_camids = query_pids[first:last, None], query_camids[first:last, None]
    is_same, is_excluded = label_pairs(block_pids, gallery_pids, block_camids, gallery_camids)
    return is_same, ~is_same & ~is_excluded & (block_pids != JUNK_PID)


def count_pairs(ids: BlockIds) -> tuple[int, int]:
    """Numbers of same and of different pairs, as `label_block` finds them, without the matrix."""
    query_pids, gallery_pids, query_camids, gallery_camids = ids
    query = torch.stack((query_pids, query_camids), dim=1)[query_pids != JUNK_PID]
    gallery = torch.stack((gallery_pids, gallery_camids), dim=1)[gallery_pids != JUNK_PID]
    same_pid = _count_equal_rows(query[:, :1], gallery[:, :1])
    same_pid_and_camera = _count_equal_rows(query, gallery)
    return same_pid - same_pid_and_camera, len(query) * len(gallery) - same_pid


def _count_equal_rows(left: torch.Tensor, right: torch.Tensor) -> int:
    """How many pairs of rows are equal, int64 [Q, c] and [G, c]."""
    if len(left) == 0 or len(right) == 0:
        return 0
    _, keys = torch.unique(torch.cat((left, right)), dim=0, return_inverse=True)
    num = int(keys.max()) + 1
    left_counts = torch.bincount(keys[: len(left)], minlength=num)
    right_counts = torch.bincount(keys[len(left) :], minlength=num)
    return int((left_counts * right_counts).sum())
