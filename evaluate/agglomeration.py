"""Constrained average linkage on the graph of near pairs.

Letters: N items (images or tracklets), D dimensions.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .distances import distance_blocks

# Budget of the distances of one block. N x N distances never exist together.
MEMORY_GIB = 0.25

# Whether any item of one cluster cannot be merged with any of another.
Conflict = Callable[[Sequence[int], Sequence[int]], bool]


@dataclass(frozen=True, eq=False)
class NearPairs:
    """Pairs of items left < right, and their cosine distances.

    Attributes:
        left, right: int64 [E].
        distances: float64 [E].
    """

    left: np.ndarray
    right: np.ndarray
    distances: np.ndarray

    def __iter__(self) -> Iterator[tuple[int, int, float]]:
        """(left, right, distance) of each pair."""
        columns = (self.left, self.right, self.distances)
        return zip(*(column.tolist() for column in columns), strict=True)

    def __len__(self) -> int:
        return len(self.left)


def find_near_pairs(embeddings: np.ndarray, limit: float) -> NearPairs:
    """All pairs of embeddings float32 [N, D] with a distance of at most `limit`."""
    features = torch.from_numpy(embeddings)
    columns = torch.arange(len(features))[None]
    parts = []
    for first, last, block in distance_blocks(features, features, memory_gib=MEMORY_GIB, copies=4):
        is_near = (block <= limit) & (columns > torch.arange(first, last)[:, None])
        rows, others = is_near.nonzero(as_tuple=True)
        parts.append((rows + first, others, block[rows, others].double()))
    return NearPairs(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))


class _Clusters:
    """Clusters that grow by merging, and the distances between them.

    A cluster that is merged gets a new number, so that the distance of two numbers never changes.

    Attributes:
        members: items of each cluster, in order.
        sums: for each cluster, its neighbors with the (sum, count) of the stored distances.
        forbidden: for each cluster, the neighbors that it cannot be merged with.
    """

    def __init__(self, count: int, pairs: NearPairs, threshold: float) -> None:
        self.members = {number: [number] for number in range(count)}
        self.sums: defaultdict[int, dict[int, tuple[float, int]]] = defaultdict(dict)
        self.forbidden: defaultdict[int, set[int]] = defaultdict(set)
        self._threshold, self._next = threshold, count
        self._heap: list[tuple[float, int, int, int, int]] = []
        for left, right, distance in pairs:
            self.sums[left][right] = self.sums[right][left] = (distance, 1)
            self._push(left, right)

    def _push(self, left: int, right: int) -> None:
        """Add a possible merge to the heap; of equal distances, the first items come first."""
        total, count = self.sums[left][right]
        sizes = len(self.members[left]) * len(self.members[right])
        mean = (total + (sizes - count) * 2 * self._threshold) / sizes
        if mean <= self._threshold:
            low, high = sorted((left, right), key=lambda number: self.members[number][0])
            key = (self.members[low][0], self.members[high][0])
            heapq.heappush(self._heap, (mean, *key, low, high))

    def pop(self) -> tuple[int, int] | None:
        """The two nearest clusters that exist and may be merged; None if there are no more."""
        while self._heap:
            *_, left, right = heapq.heappop(self._heap)
            if left in self.members and right in self.members:
                return left, right
        return None

    def forbid(self, left: int, right: int) -> None:
        """Two clusters that contain a conflict stay apart, whatever they are merged with."""
        for one, other in ((left, right), (right, left)):
            del self.sums[one][other]
            self.forbidden[one].add(other)

    def merge(self, left: int, right: int) -> None:
        """Replace two clusters by a new one."""
        new, self._next = self._next, self._next + 1
        self.members[new] = sorted(self.members.pop(left) + self.members.pop(right))
        forbidden = self.forbidden.pop(left, set()) | self.forbidden.pop(right, set())
        for other in forbidden:
            self.forbidden[other] -= {left, right}
            self.forbidden[other].add(new)
        self.forbidden[new] = forbidden
        neighbors: dict[int, tuple[float, int]] = {}
        for old in (left, right):
            for other, (total, count) in self.sums.pop(old).items():
                if other in (left, right):
                    continue
                del self.sums[other][old]
                so_far, num_so_far = neighbors.get(other, (0.0, 0))
                neighbors[other] = (so_far + total, num_so_far + count)
        for other, stored in neighbors.items():
            if other not in forbidden:
                self.sums[new][other] = self.sums[other][new] = stored
                self._push(new, other)


def average_linkage(
    count: int, pairs: NearPairs, *, threshold: float, conflict: Conflict
) -> np.ndarray:
    """Average linkage of min(distance, 2 x threshold), without forbidden pairs in a cluster.

    The two clusters with the smallest mean distance are merged, until it is above the threshold.
    Pairs that are not stored count as 2 x threshold. Clusters that contain a forbidden pair
    are not merged. Of equal means, the clusters with the first items are merged first.

    Args:
        count: N.
        pairs: all pairs with a distance of at most 2 x threshold.
        threshold: largest mean distance.
        conflict: whether clusters contain a forbidden pair.

    Returns:
        int64 [N]: the cluster of each item, numbered from 0 in order of their first items.
    """
    clusters = _Clusters(count, pairs, threshold)
    while (nearest := clusters.pop()) is not None:
        if conflict(*(clusters.members[number] for number in nearest)):
            clusters.forbid(*nearest)
        else:
            clusters.merge(*nearest)
    labels = np.empty(count, np.int64)
    for label, members in enumerate(sorted(clusters.members.values())):
        labels[members] = label
    return labels


def silhouettes(
    labels: np.ndarray, pairs: NearPairs, *, threshold: float, conflict: Conflict
) -> np.ndarray:
    """How much nearer each item is to its own cluster than to the next one it may join.

    The silhouette (Rousseeuw 1987) is (b - a) / max(a, b): a is the mean distance to the other
    items of its cluster (alone in it: the threshold), b the smallest mean distance to another
    cluster. As in `average_linkage`, distances are at most 2 x threshold, and clusters in conflict
    with the item do not count. We depart from the paper in these two points, and for clusters of
    one item, where the paper says 0.

    Args:
        labels: int64 [N], see `average_linkage`.

    Returns:
        float64 [N] in [-1, 1]; near 0 or below: the item may belong to another cluster.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for item, label in enumerate(labels.tolist()):
        members[label].append(item)
    sums: list[dict[int, tuple[float, int]]] = [{} for _ in labels]
    for left, right, distance in pairs:
        for one, other in ((left, right), (right, left)):
            total, count = sums[one].get(int(labels[other]), (0.0, 0))
            sums[one][int(labels[other])] = (total + distance, count + 1)
    found = np.empty(len(labels))
    for item, own in enumerate(labels.tolist()):
        means = {}
        for label, (total, count) in sums[item].items():
            size = len(members[label]) - (label == own)
            means[label] = (total + (size - count) * 2 * threshold) / size
        a = means.pop(own, 2 * threshold if len(members[own]) > 1 else threshold)
        b = 2 * threshold
        for label, mean in sorted(means.items(), key=lambda entry: entry[1]):
            if not conflict([item], members[label]):
                b = mean
                break
        found[item] = (b - a) / max(a, b) if max(a, b) > 0 else 0.0
    return found
