"""Clusters of unlabeled items from sparse distances, and how reliable they are.

Letters: N items, C clusters.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from sklearn.cluster import DBSCAN, HDBSCAN
from sklearn.neighbors import sort_graph_by_row_values

from .agglomeration import NearPairs, average_linkage
from .fast.k_reciprocal import RESOLUTION

# The label of an item that is in no cluster, as in scikit-learn.
OUTLIER = -1
ALGORITHMS = ("dbscan", "hdbscan", "agglomeration")


@dataclass(frozen=True)
class ClusterSettings:
    """How items are clustered.

    Attributes:
        algorithm: one of `ALGORITHMS`.
        radius: "dbscan": largest distance of neighbors (eps). "hdbscan": larger distances count as
            this one. "agglomeration": largest mean distance of two clusters that are merged.
        min_samples: "dbscan": items within the radius of a core item, with itself. "hdbscan": the
            same for core distances, and the smallest cluster. "agglomeration": smallest cluster.
    """

    algorithm: str = "dbscan"
    radius: float = 0.6
    min_samples: int = 4

    @property
    def stored_radius(self) -> float:
        """The radius up to which distances must be stored."""
        return min(2 * self.radius, 1.0) if self.algorithm == "agglomeration" else self.radius


@dataclass(frozen=True)
class Reliability:
    """SpCL's criterion: how well each cluster is found with a smaller and with a larger radius.

    Attributes:
        labels: int64 [N], clusters of the reliable items; `OUTLIER` for all others.
        limit: largest value 1 - independence of a reliable cluster.
    """

    labels: np.ndarray
    limit: float


def cluster(
    distances: sparse.csr_array, settings: ClusterSettings, tracks: np.ndarray | None = None
) -> np.ndarray:
    """Cluster items by their sparse distances.

    Args:
        distances: float32 [N, N], symmetric, with an explicit diagonal of zeros; pairs that are
            not stored are above `settings.stored_radius`. See `jaccard_distances`.
        tracks: int64 [N], items with the same number have one identity (must-link), -1 for none;
            clusters that share a track are merged, and its outliers join them.

    Returns:
        int64 [N]: clusters, numbered from 0, or `OUTLIER`.
    """
    near = _within(distances, settings.stored_radius)
    if settings.algorithm == "dbscan":
        labels = _dbscan(near, settings)
    elif settings.algorithm == "hdbscan":
        labels = _hdbscan(near, settings)
    elif settings.algorithm == "agglomeration":
        labels = _agglomerate(near, settings)
    else:
        raise ValueError(
            f"the algorithm must be one of {', '.join(ALGORITHMS)}, found {settings.algorithm}."
        )
    return labels if tracks is None else merge_tracks(labels, tracks)


def _within(distances: sparse.csr_array, radius: float) -> sparse.csr_array:
    """The stored distances of at most `radius`, as a copy."""
    kept = distances.data <= radius
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(kept)))[distances.indptr]
    found = (distances.data[kept], distances.indices[kept], starts)
    return sparse.csr_array(found, distances.shape)


def _dbscan(near: sparse.csr_array, settings: ClusterSettings) -> np.ndarray:
    """DBSCAN with the stored pairs as neighbors (Ester et al., KDD 1996)."""
    graph = sort_graph_by_row_values(near, copy=False, warn_when_not_sorted=False)
    search = DBSCAN(eps=settings.radius, min_samples=settings.min_samples, metric="precomputed")
    return search.fit_predict(graph).astype(np.int64)


def _hdbscan(near: sparse.csr_array, settings: ClusterSettings) -> np.ndarray:
    """HDBSCAN (Campello et al., PAKDD 2013) of min(distance, radius).

    As in scikit-learn, the order of the items decides between equal distances.
    """
    num = near.shape[0]
    if num <= settings.min_samples:
        return np.full(num, OUTLIER)
    # Distances of zero would not be edges of the spanning tree. The diagonal stays zero.
    owners = np.repeat(np.arange(num), np.diff(near.indptr))
    is_pair = owners != near.indices
    near.data[is_pair] = np.maximum(near.data[is_pair], np.float32(RESOLUTION))
    # The graph must be connected, and every item needs `min_samples` neighbors: some of the pairs
    # that are not stored, whose distance is the radius.
    shifts = np.arange(1, settings.min_samples + 1)
    bands = np.full((len(shifts), num), settings.radius, np.float32)
    upper = sparse.dia_array((bands, shifts), shape=near.shape)
    filled = (upper + upper.T).tocsr()
    filled -= filled.multiply(near.astype(bool))
    filled.eliminate_zeros()
    graph = near + filled
    graph.setdiag(0)
    search = HDBSCAN(
        min_cluster_size=max(2, settings.min_samples),
        min_samples=settings.min_samples,
        metric="precomputed",
        copy=False,
    )
    return search.fit_predict(graph.tocsr()).astype(np.int64)


def _agglomerate(near: sparse.csr_array, settings: ClusterSettings) -> np.ndarray:
    """Average linkage; clusters below `min_samples` are outliers."""
    upper = sparse.triu(near, k=1).tocoo()
    order = np.lexsort((upper.col, upper.row))
    pairs = NearPairs(
        upper.row[order].astype(np.int64),
        upper.col[order].astype(np.int64),
        upper.data[order].astype(np.float64),
    )
    found = average_linkage(
        near.shape[0], pairs, threshold=settings.radius, conflict=lambda left, right: False
    )
    is_large = np.bincount(found, minlength=1) >= settings.min_samples
    numbers = np.where(is_large, np.cumsum(is_large) - 1, OUTLIER)
    return numbers[found]


def merge_tracks(labels: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """Give all items of a track one label: merge clusters that share a track.

    Outliers of the track join its cluster. A track of outliers alone stays one.

    Args:
        labels: int64 [N], clusters or `OUTLIER`.
        tracks: int64 [N], -1 for items without a track.

    Returns:
        int64 [N]: clusters, numbered in the order of their smallest labels, or `OUTLIER`.
    """
    num_labels = int(labels.max(initial=OUTLIER)) + 1
    both = (labels != OUTLIER) & (tracks >= 0)
    names, members = np.unique(tracks, return_inverse=True)
    # A graph of clusters and tracks: an edge for each item that has both.
    edges = (np.ones(both.sum(), np.int8), (labels[both], num_labels + members[both]))
    size = num_labels + len(names)
    _, parts = csgraph.connected_components(sparse.coo_array(edges, (size, size)), directed=False)
    # The components, numbered in the order of the smallest label; those without a label vanish.
    found, first = np.unique(parts[:num_labels], return_index=True)
    numbers = np.full(size, OUTLIER)
    numbers[found[np.argsort(first)]] = np.arange(len(found))
    nodes = np.where(labels != OUTLIER, labels, num_labels + members)
    is_free = (labels == OUTLIER) & (tracks < 0)
    return np.where(is_free, OUTLIER, numbers[parts[nodes]])


def reliable_clusters(
    labels: np.ndarray, tight: np.ndarray, loose: np.ndarray, limit: float | None = None
) -> Reliability:
    """Keep reliable items of reliable clusters (Ge et al., SpCL, NeurIPS 2020, equations 5 and 6).

    With A the cluster of an item, B its cluster with the smaller and C with the larger radius,
    compactness is |A & B| / |A | B| and independence |A & C| / |A | C|. As in the authors'
    program, and not in the paper: the independence of a cluster is that of its best item, and an
    item is kept if no other item of its cluster is more compact. Outliers are clusters of one.

    Args:
        labels, tight, loose: int64 [N], clusters with the radius, a smaller and a larger one.
        limit: `Reliability.limit` of the first clustering of a training; None for the first one,
            which sets it such that nine of ten clusters are reliable.
    """
    labels_alone, tight, loose = (_separate(each) for each in (labels, tight, loose))
    spread = 1 - _overlap(labels_alone, tight)
    dependence = 1 - _overlap(labels_alone, loose)
    num = int(labels_alone.max(initial=-1)) + 1
    least_spread, least_dependence = np.full(num, np.inf), np.full(num, np.inf)
    np.minimum.at(least_spread, labels_alone, spread)
    np.minimum.at(least_dependence, labels_alone, dependence)
    if limit is None:
        sizes = np.bincount(labels_alone, minlength=num)
        ranked = np.sort(least_dependence[sizes > 1])
        place = min(len(ranked) - 1, round(0.9 * len(ranked)))
        limit = float(ranked[place]) if len(ranked) else 0.0
    kept = (least_dependence[labels_alone] <= limit) & (spread <= least_spread[labels_alone])
    return Reliability(_renumber(np.where(kept, labels, OUTLIER)), limit)


def _separate(labels: np.ndarray) -> np.ndarray:
    """Labels in which each outlier is a cluster of its own."""
    alone = labels == OUTLIER
    separated = labels.copy()
    separated[alone] = labels.max(initial=OUTLIER) + 1 + np.arange(alone.sum())
    return separated


def _renumber(labels: np.ndarray) -> np.ndarray:
    """Labels of clusters with at least two items, numbered from 0 in their order."""
    names, places, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    is_kept = (names != OUTLIER) & (sizes > 1)
    return np.where(is_kept, np.cumsum(is_kept) - 1, OUTLIER)[places]


def _overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """|A & B| / |A | B| of the two clusters of each item, float64 [N]."""
    pairs = np.stack((one, other), axis=1)
    _, places, shared = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    common = shared[places.ravel()]
    return common / (np.bincount(one)[one] + np.bincount(other)[other] - common)


def mean_silhouette(distances: sparse.csr_array, labels: np.ndarray, radius: float) -> float:
    """The mean silhouette (Rousseeuw 1987) of min(distance, radius).

    (b - a) / max(a, b), where a is the mean distance of an item to the others of its cluster and b
    the smallest mean distance to another cluster. Outliers and items that are alone count as 0, so
    that a radius that leaves most items without a cluster has a low value.

    Args:
        distances: see `cluster`, stored at least up to `radius`.
        labels: int64 [N], clusters or `OUTLIER`.

    Returns:
        A value in [-1, 1].
    """
    clustered = np.flatnonzero(labels != OUTLIER)
    own, num = labels[clustered], int(labels.max(initial=OUTLIER)) + 1
    if not num:
        return 0.0
    near = _within(distances, radius)
    near.setdiag(np.float32(radius))
    # Differences from the radius: pairs that are not stored and the diagonal are 0.
    near.data -= np.float32(radius)
    members = sparse.csr_array(
        (np.ones(len(clustered), np.float32), (clustered, own)), (len(labels), num)
    )
    sums = (near[clustered] @ members).tocoo()
    sizes = np.bincount(own, minlength=num)
    is_own = sums.col == own[sums.row]
    a, b = np.zeros(len(own)), np.zeros(len(own))
    a[sums.row[is_own]] = sums.data[is_own]
    a = radius + a / np.maximum(sizes[own] - 1, 1)
    np.minimum.at(b, sums.row[~is_own], sums.data[~is_own] / sizes[sums.col[~is_own]])
    b += radius
    found = np.where(sizes[own] > 1, (b - a) / np.maximum(np.maximum(a, b), RESOLUTION), 0.0)
    return float(found.sum() / len(labels))
