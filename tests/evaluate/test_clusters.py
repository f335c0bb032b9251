"""Jaccard distances and clusters, against slow references over N x N matrices."""

from functools import partial

import numpy as np
import pytest
from ember_reid.evaluate import (
    ClusterSettings,
    cluster,
    jaccard_distances,
    mean_silhouette,
    reliable_clusters,
)
from ember_reid.evaluate.clusters import OUTLIER, merge_tracks
from ember_reid.evaluate.fast import neighbors
from ember_reid.evaluate.reference import (
    pairwise_distances,
    reciprocal_neighbors,
    round_ties,
)
from scipy import sparse
from sklearn.cluster import DBSCAN, HDBSCAN
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from tests.helpers.synthetic import clustered_features


def slow_jaccard(features: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """The formula of the programs of SpCL and Cluster Contrast, float64 [N, N]."""
    num = len(features)
    distances = round_ties(np.maximum(2 * pairwise_distances(features, features), 0))
    np.fill_diagonal(distances, 0)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :k1]
    weights = np.zeros((num, num))
    for i in range(num):
        near = reciprocal_neighbors(nearest, i, k1)
        members = set(near)
        for candidate in near:
            half = reciprocal_neighbors(nearest, candidate, round(k1 / 2))
            if len(half & near) > 2 / 3 * len(half):
                members |= half
        values = np.exp(-distances[i, sorted(members)])
        weights[i, sorted(members)] = values / values.sum()
    if k2 > 1:
        weights = np.stack([weights[row[:k2]].mean(axis=0) for row in nearest])
    shared = np.minimum(weights[:, None], weights[None]).sum(axis=2)
    return np.maximum(1 - shared / (2 - shared), 0)


def people(seed: int, num: int = 130, spread: float = 1.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    pids = generator.integers(0, 12, num)
    return clustered_features(generator, pids, 16) + spread * 0.1 * generator.normal(size=(num, 16))


def dense(distances: sparse.csr_array, missing: float) -> np.ndarray:
    full = np.full(distances.shape, missing)
    rows = np.repeat(np.arange(len(full)), np.diff(distances.indptr))
    full[rows, distances.indices] = distances.data
    return full


@pytest.fixture(params=["torch", "kernel"])
def path(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(neighbors, "nearest_cy", None)
    elif neighbors.nearest_cy is None:
        pytest.skip("the kernels are not built")


@pytest.mark.parametrize("k1, k2", [(30, 6), (15, 4), (7, 1), (1, 1)])
def test_distances_equal_those_of_the_authors_formula(path, k1, k2):
    features = people(k1).astype(np.float32)
    expected = slow_jaccard(features, k1, k2)
    found = jaccard_distances(features, k1=k1, k2=k2, radius=1.0)
    np.testing.assert_allclose(dense(found, np.nan), expected, atol=3e-6)
    near = jaccard_distances(features, k1=k1, k2=k2, radius=0.6)
    assert near.nnz == np.count_nonzero(found.data <= 0.6) < found.nnz
    assert (near != near.T).nnz == 0
    assert not near.diagonal().any()
    full = dense(found, 1.0)
    np.testing.assert_array_equal(dense(near, 1.0), np.where(full <= 0.6, full, 1.0))


@pytest.mark.parametrize("seed", [0, 1])
def test_dbscan_equals_scikit_learn_on_the_full_matrix(seed):
    features = people(seed, spread=4).astype(np.float32)
    full, distances = slow_jaccard(features, 30, 6), jaccard_distances(features, radius=0.7)
    for radius in (0.4, 0.5, 0.6, 0.7):
        expected = DBSCAN(eps=radius, min_samples=4, metric="precomputed").fit_predict(full)
        found = cluster(distances, ClusterSettings("dbscan", radius, 4))
        assert found.tolist() == expected.tolist()
        if radius == 0.5:
            assert expected.max() > 2
            assert (expected == OUTLIER).any()


def test_hdbscan_agrees_with_scikit_learn_on_the_full_matrix():
    """Ties are broken by the order of the edges: permuting the full matrix has the same effect."""
    equal = 0
    for seed in range(4):
        distances = jaccard_distances(people(seed, spread=3).astype(np.float32), radius=0.9)
        full = np.maximum(dense(distances, 0.9), 2.0**-20)
        np.fill_diagonal(full, 0)
        search = HDBSCAN(min_cluster_size=4, min_samples=4, metric="precomputed", copy=True)
        expected = search.fit_predict(full)
        found = cluster(distances, ClusterSettings("hdbscan", 0.9, 4))
        assert found.max() == expected.max() > 2
        assert adjusted_rand_score(found, expected) > 0.94
        equal += same_partition(found, expected)
    assert equal > 0


def same_partition(one, other) -> bool:
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len({left for left, _ in pairs}) == len({right for _, right in pairs})


def matrix(rows) -> sparse.csr_array:
    """All pairs of a small matrix, zeros included."""
    full = np.array(rows, np.float32)
    places = np.indices(full.shape).reshape(2, -1)
    return sparse.csr_array(sparse.coo_array((full.ravel(), places), full.shape))


def test_agglomeration_by_hand():
    distances = matrix(
        [[0, 0.1, 0.5, 1], [0.1, 0, 0.3, 1], [0.5, 0.3, 0, 1], [1, 1, 1, 0]],
    )
    # The mean distance of item 2 to {0, 1} is 0.4.
    labels = partial(cluster, distances)
    assert labels(ClusterSettings("agglomeration", 0.41, 2)).tolist() == [0, 0, 0, -1]
    assert labels(ClusterSettings("agglomeration", 0.39, 2)).tolist() == [0, 0, -1, -1]
    assert labels(ClusterSettings("agglomeration", 0.39, 3)).tolist() == [-1, -1, -1, -1]
    assert labels(ClusterSettings("agglomeration", 0.39, 1)).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("algorithm", ["dbscan", "hdbscan", "agglomeration"])
def test_items_without_neighbors_are_outliers(algorithm):
    alone = sparse.csr_array(sparse.coo_array((np.zeros(6, np.float32), [np.arange(6)] * 2)))
    assert cluster(alone, ClusterSettings(algorithm, 0.5, 2)).tolist() == [OUTLIER] * 6


def test_an_unknown_algorithm():
    with pytest.raises(ValueError, match="must be one of dbscan, hdbscan, agglomeration, found k"):
        cluster(matrix([[0]]), ClusterSettings("k"))


def test_tracks_merge_clusters():
    labels = np.array([0, 0, 1, 1, 2, 2, -1, -1, -1])
    tracks = np.array([5, -1, -1, -1, 5, -1, 5, 8, -1])
    assert merge_tracks(labels, tracks).tolist() == [0, 0, 1, 1, 0, 0, 0, -1, -1]
    assert merge_tracks(labels, np.full(9, -1)).tolist() == labels.tolist()
    distances = matrix(1 - np.eye(9))
    merged = cluster(distances, ClusterSettings("dbscan", 0.5, 1), np.array([3, 3, *[-1] * 7]))
    assert merged.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7]


def slow_reliability(labels, tight, loose, limit=None):
    """The criterion of SpCL's program with N x N matrices; outliers have labels of their own."""
    num = len(labels)

    def separate(each):
        alone = iter(range(1000, 1000 + num))
        return np.array([next(alone) if label == OUTLIER else label for label in each])

    own, tight, loose = separate(labels), separate(tight), separate(loose)
    same, same_tight, same_loose = (each[:, None] == each for each in (own, tight, loose))
    compact = 1 - (same & same_tight).sum(1) / (same | same_tight).sum(1)
    independent = 1 - (same & same_loose).sum(1) / (same | same_loose).sum(1)
    if limit is None:
        ranked = sorted(independent[own == c].min() for c in set(own) if (own == c).sum() > 1)
        limit = ranked[min(len(ranked) - 1, int(np.round(len(ranked) * 0.9)))]
    kept = [
        independent[own == own[i]].min() <= limit and compact[i] <= compact[own == own[i]].min()
        for i in range(num)
    ]
    return np.array(kept), limit


def test_reliability_equals_the_authors_criterion():
    features = people(3, spread=3).astype(np.float32)
    distances = jaccard_distances(features, radius=0.7)
    labels, tight, loose = (
        cluster(distances, ClusterSettings("dbscan", radius, 4)) for radius in (0.5, 0.4, 0.6)
    )
    found = reliable_clusters(labels, tight, loose)
    kept, limit = slow_reliability(labels, tight, loose)
    assert found.limit == limit
    sizes = np.array([((labels == label) & kept).sum() for label in labels])
    expected = np.where(kept & (labels != OUTLIER) & (sizes > 1), labels, OUTLIER)
    assert same_partition(found.labels, expected)
    assert 2 < len(set(found.labels.tolist())) < len(set(labels.tolist())) + 1
    assert (found.labels == OUTLIER).sum() > (labels == OUTLIER).sum()
    again = reliable_clusters(labels, tight, loose, limit=0.0)
    assert (again.labels != OUTLIER).sum() <= (found.labels != OUTLIER).sum()


def test_silhouette_equals_scikit_learn():
    distances = jaccard_distances(people(4, spread=4).astype(np.float32), radius=0.8)
    labels = cluster(distances, ClusterSettings("dbscan", 0.5, 4))
    full, clustered = dense(distances, 0.8), labels != OUTLIER
    expected = silhouette_samples(
        full[np.ix_(clustered, clustered)], labels[clustered], metric="precomputed"
    )
    assert mean_silhouette(distances, labels, 0.8) == pytest.approx(
        expected.sum() / len(labels), abs=1e-5
    )
    assert mean_silhouette(distances, np.full(len(labels), OUTLIER), 0.8) == 0
