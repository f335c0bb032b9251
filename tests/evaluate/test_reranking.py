import numpy as np
import pytest
import torch
from ember_reid.evaluate import (
    Rerank,
    evaluate_features,
    rank_metrics,
    rerank_distances,
    reranking,
)
from ember_reid.evaluate.fast import neighbors, tiles
from retrieval_oracles import clustered_features, random_ids, reranked_by_formula

PATHS = ["torch"] + (["kernel", "codes"] if neighbors.neighbors_cy is not None else [])


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """All ways through re-ranking, in small blocks so that lists run over many tiles."""
    if request.param == "torch":
        monkeypatch.setattr(neighbors, "neighbors_cy", None)
    if request.param == "codes":
        monkeypatch.setattr(reranking, "prefer_integers", lambda device, work: True)
    monkeypatch.setattr(tiles, "ROWS_CPU", 7)
    monkeypatch.setattr(neighbors, "COLUMNS", 40)
    monkeypatch.setattr(reranking, "COLUMNS", 40)


def features(num_query=13, num_gallery=60, seed=0, dims=16):
    generator = np.random.default_rng(seed)
    both = clustered_features(generator, generator.integers(0, 8, num_query + num_gallery), dims)
    return both[:num_query], both[num_query:]


@pytest.mark.parametrize(
    "k1, k2, lambda_value", [(20, 6, 0.3), (7, 3, 0.5), (5, 1, 0.0), (15, 16, 0.9), (1, 1, 0.3)]
)
def test_equals_the_formulas_in_float64(path, k1, k2, lambda_value):
    for seed in range(3):
        query, gallery = features(seed=seed)
        found = rerank_distances(query, gallery, k1=k1, k2=k2, lambda_value=lambda_value)
        expected = reranked_by_formula(
            np.concatenate((query, gallery)), len(query), k1, k2, lambda_value
        )
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=3e-6)


def test_larger_random_set(path):
    query, gallery = features(60, 240, seed=5, dims=8)
    expected = reranked_by_formula(np.concatenate((query, gallery)), 60, 12, 4, 0.3)
    np.testing.assert_allclose(rerank_distances(query, gallery, k1=12, k2=4), expected, atol=3e-6)


@pytest.mark.parametrize("k1, k2", [(20, 6), (6, 3), (3, 1)])
def test_ties_and_duplicates(path, k1, k2):
    # four entries of +-1 in 8 dimensions: all arithmetic is exact, distances have nine values, many items are equal
    generator = np.random.default_rng(0)
    both = np.zeros((90, 8), np.float32)
    for row in both:
        row[generator.choice(8, 4, replace=False)] = generator.choice([-1, 1], 4)
    both[40:50] = both[:10]
    found = rerank_distances(both[:13], both[13:], k1=k1, k2=k2)
    np.testing.assert_allclose(found, reranked_by_formula(both, 13, k1, k2, 0.3), atol=1e-6)


@pytest.mark.parametrize("num_gallery", [1, 2, 9])
def test_fewer_items_than_neighbors(path, num_gallery):
    query, gallery = features(3, num_gallery)
    found = rerank_distances(query, gallery)
    expected = reranked_by_formula(np.concatenate((query, gallery)), 3, 20, 6, 0.3)
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_lambda_one_is_the_scaled_distance(path):
    query, gallery = features()
    unit = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in (query, gallery)]
    every = np.concatenate(unit)
    farthest = (2 - 2 * unit[0] @ every.T).max(axis=1, keepdims=True)
    np.testing.assert_allclose(
        rerank_distances(query, gallery, lambda_value=1),
        (2 - 2 * unit[0] @ unit[1].T) / farthest,
        atol=1e-6,
    )


def test_all_items_equal(path):
    ones = np.ones((30, 4), np.float32)
    found = rerank_distances(ones[:4], ones[4:])
    assert np.isfinite(found).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_scores_without_the_matrix_are_those_of_the_matrix(path, metric):
    query, gallery = features(20, 90, seed=3)
    if metric == "euclidean":  # with unit features both metrics are the same
        query, gallery = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (query, gallery))
    ids = random_ids(np.random.default_rng(1), 20, 90)
    kept = ids[1] != -1  # junk takes no part in the neighborhoods
    distances = rerank_distances(query, gallery[kept])
    expected = rank_metrics(distances, ids[0], ids[1][kept], ids[2], ids[3][kept])
    scores = evaluate_features(query, gallery, *ids, metric=metric, rerank=Rerank())
    np.testing.assert_allclose(scores.ap, expected.ap, atol=1e-6)
    plain = evaluate_features(query, gallery, *ids, metric=metric)
    as_input = evaluate_features(
        query, gallery, *ids, metric=metric, rerank=Rerank(lambda_value=1.0)
    )
    np.testing.assert_allclose(as_input.ap, plain.ap, atol=1e-6)


def test_torch_in_torch_out():
    query, gallery = features()
    found = rerank_distances(torch.from_numpy(query), torch.from_numpy(gallery))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), rerank_distances(query, gallery))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"k1": 0}, "k1 must be a whole number of at least 1, found 0."),
        ({"k1": 2.5}, "k1 must be a whole number of at least 1, found 2.5."),
        ({"k2": 0}, "k2 must be a whole number of at least 1, found 0."),
        (
            {"k1": 3, "k2": 5},
            r"k2 must be at most k1 \+ 1, the number of neighbors kept, found k2 5 and k1 3.",
        ),
        ({"lambda_value": -0.1}, "lambda_value must be a number between 0 and 1, found -0.1."),
        (
            {"lambda_value": float("nan")},
            "lambda_value must be a number between 0 and 1, found nan.",
        ),
    ],
)
def test_mistakes_are_named(options, message):
    query, gallery = features()
    with pytest.raises(ValueError, match=message):
        rerank_distances(query, gallery, **options)


def test_rerank_must_be_a_rerank():
    query, gallery = features()
    ids = random_ids(np.random.default_rng(1), len(query), len(gallery))
    with pytest.raises(
        ValueError, match=r"rerank must be None or Rerank\(k1, k2, lambda_value\), found True."
    ):
        evaluate_features(query, gallery, *ids, rerank=True)
