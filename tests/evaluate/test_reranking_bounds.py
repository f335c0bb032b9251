import numpy as np
import pytest
from ember_reid.evaluate import (
    Rerank,
    evaluate_features,
    rank_metrics,
    rerank_distances,
)
from ember_reid.evaluate.fast import neighbors, reranking_bounds
from ember_reid.evaluate.reference import reference_rerank

from tests.helpers.synthetic import clustered_features, random_ids, sign_features


@pytest.fixture
def shares(monkeypatch):
    """The share of queries that the bound ranks in each evaluation; in several kernel calls."""
    found = []
    fill_bounded_ranks = reranking_bounds.fill_bounded_ranks

    def record(ranks, numbers, **options):
        others = fill_bounded_ranks(ranks, numbers, **options)
        found.append(1 - len(others) / len(numbers))
        return others

    monkeypatch.setattr("ember_reid.evaluate.retrieval.fill_bounded_ranks", record)
    monkeypatch.setattr(reranking_bounds, "QUERIES_AT_ONCE", 10)
    return found


def people(seed, noise, *, num_query=40, num_gallery=400, num_pids=60):
    """Features around identities, and ids of three cameras without junk."""
    generator = np.random.default_rng(seed)
    ids = random_ids(generator, num_query, num_gallery, num_pids, junk=False)
    both = clustered_features(generator, np.concatenate(ids[:2]), noise=noise)
    return both[:num_query], both[num_query:], ids


COMPILED = pytest.mark.skipif(
    neighbors.nearest_cy is None, reason="the bound is used by the compiled kernels only"
)


@COMPILED
@pytest.mark.parametrize(
    "noise, lambda_value, least, most",
    [
        (0.2, 0.3, 0.99, 1),
        (0.8, 0.0, 0.9, 1),
        (0.8, 0.3, 0.8, 0.95),
        (0.8, 1.0, 0.2, 0.4),
        (2.0, 0.3, 0.01, 0.1),
    ],
)
def test_scores_are_those_of_whole_rows(shares, noise, lambda_value, least, most):
    for seed in range(4):
        query, gallery, ids = people(seed, noise)
        scores = evaluate_features(query, gallery, *ids, rerank=Rerank(12, 4, lambda_value))
        distances = rerank_distances(query, gallery, k1=12, k2=4, lambda_value=lambda_value)
        expected = rank_metrics(distances, *ids)
        np.testing.assert_allclose(scores.ap, expected.ap, atol=1e-6)
        np.testing.assert_allclose(scores.inp, expected.inp, atol=1e-6)
    assert least <= np.mean(shares) <= most


@COMPILED
def test_equally_far_entries_keep_gallery_order(shares):
    generator = np.random.default_rng(0)
    both = sign_features(generator, 60)
    query, gallery = both[:20], np.tile(both, (4, 1))
    ids = np.arange(20), np.tile(np.arange(60), 4), np.zeros(20, int), generator.integers(0, 2, 240)
    scores = evaluate_features(query, gallery, *ids, rerank=Rerank(8, 1))
    expected = rank_metrics(rerank_distances(query, gallery, k1=8, k2=1), *ids)
    np.testing.assert_array_equal(scores.ap, expected.ap)
    assert np.mean(shares) == 1


@COMPILED
def test_a_match_without_shared_weights_needs_the_whole_row(shares):
    # Query 0 and its match are orthogonal; the two nearest of query 1 are its matches.
    query = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    near = np.array(
        [[1, 0.1 * i, 0] for i in range(5)] + [[0.1 * i, 1, 0] for i in range(1, 6)], np.float32
    )
    gallery = np.concatenate((near, [[0, 0, 1]])).astype(np.float32)
    ids = (
        np.array([0, 1]),
        np.array([2] * 5 + [1] * 2 + [2] * 3 + [0]),
        np.array([0, 0]),
        np.ones(11, int),
    )
    scores = evaluate_features(query, gallery, *ids, rerank=Rerank(3, 1))
    assert shares == [0.5]
    expected = reference_rerank(query, gallery, k1=3, k2=1)
    before = (expected[0] < expected[0, -1]).sum()
    assert scores.ap[0] == pytest.approx(1 / (before + 1))


@COMPILED
@pytest.mark.parametrize("lambda_value", [0.0, 0.3])
def test_if_all_items_are_neighbors_the_bound_ranks_all_queries(shares, lambda_value):
    query, gallery, ids = people(0, 0.8, num_query=6, num_gallery=12, num_pids=3)
    scores = evaluate_features(query, gallery, *ids, rerank=Rerank(20, 6, lambda_value))
    expected = rank_metrics(rerank_distances(query, gallery, lambda_value=lambda_value), *ids)
    np.testing.assert_allclose(scores.ap, expected.ap, atol=1e-6)
    assert shares == [1]
