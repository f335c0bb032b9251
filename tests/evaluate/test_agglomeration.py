"""Average linkage on near pairs, against a slow reference."""

from itertools import combinations, product

import numpy as np
import pytest
from ember_reid.evaluate.agglomeration import (
    NearPairs,
    average_linkage,
    find_near_pairs,
    silhouettes,
)


def never(left, right):
    return False


def stored(distances, limit) -> NearPairs:
    left, right = np.triu_indices(len(distances), 1)
    near = distances[left, right] <= limit
    return NearPairs(left[near], right[near], distances[left, right][near])


def link_slowly(distances, forbidden, threshold):
    """Average linkage with loops over all pairs of clusters and of their members."""
    clipped = np.minimum(distances, 2 * threshold)
    clusters = [[item] for item in range(len(distances))]
    while True:
        merges = []
        for a, b in combinations(range(len(clusters)), 2):
            pairs = list(product(clusters[a], clusters[b]))
            if any(forbidden[i, j] for i, j in pairs):
                continue
            mean = sum(clipped[i, j] for i, j in pairs) / len(pairs)
            if mean <= threshold:
                merges.append((mean, a, b))
        if not merges:
            break
        # The order of the clusters is that of their first members.
        _, a, b = min(merges)
        clusters[a] = sorted(clusters[a] + clusters.pop(b))
    labels = np.empty(len(distances), int)
    for label, members in enumerate(clusters):
        labels[members] = label
    return labels


# With 8 steps there are many equal distances, with 64 few. All sums are exact.
@pytest.mark.parametrize("steps", [8, 64])
def test_clusters_equal_those_of_the_slow_reference(steps):
    rng = np.random.default_rng(steps)
    sizes = set()
    for _ in range(15):
        distances = rng.integers(0, steps, (16, 16)) / steps
        distances = np.triu(distances, 1) + np.triu(distances, 1).T
        forbidden = np.triu(rng.random((16, 16)) < 0.1, 1)
        forbidden |= forbidden.T
        pairs = stored(distances, 0.75)
        labels = average_linkage(
            16,
            pairs,
            threshold=0.375,
            conflict=lambda a, b, forbidden=forbidden: bool(forbidden[np.ix_(a, b)].any()),
        )
        assert labels.tolist() == link_slowly(distances, forbidden, 0.375).tolist()
        sizes |= set(np.bincount(labels).tolist())
    assert len(sizes) >= 3


def test_near_pairs_equal_the_full_matrix():
    embeddings = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    distances = 1 - embeddings @ embeddings.T
    pairs = find_near_pairs(embeddings, 0.5)
    expected = stored(distances, 0.5)
    assert 0 < len(pairs) == len(expected)
    assert [(i, j) for i, j, _ in pairs] == [(i, j) for i, j, _ in expected]
    np.testing.assert_allclose(pairs.distances, expected.distances, atol=1e-6)


def test_confidence_by_hand():
    pairs = NearPairs(np.array([0, 1]), np.array([1, 2]), np.array([0.2, 0.6]))
    labels = average_linkage(3, pairs, threshold=0.4, conflict=never)
    assert labels.tolist() == [0, 0, 1]
    # The missing pair 0-2 counts as 0.8. Tracklet 2 is alone: a is the threshold.
    found = silhouettes(labels, pairs, threshold=0.4, conflict=never)
    expected = [(0.8 - 0.2) / 0.8, (0.6 - 0.2) / 0.6, (0.7 - 0.4) / 0.7]
    np.testing.assert_allclose(found, expected)
    apart = silhouettes(labels, pairs, threshold=0.4, conflict=lambda a, b: 2 in (*a, *b))
    np.testing.assert_allclose(apart, [0.75, 0.75, 0.5])
