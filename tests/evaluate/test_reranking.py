import numpy as np
import pytest
import torch
from ember_reid.evaluate import (
    Rerank,
    evaluate_features,
    rank_metrics,
    rerank_distances,
)
from ember_reid.evaluate.fast import k_reciprocal, neighbors, tiles
from ember_reid.evaluate.reference import reference_rerank

from tests.helpers.synthetic import clustered_features, random_ids, sign_features

PATHS = ["torch"] + (["kernel", "int8"] if neighbors.nearest_cy is not None else [])


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """All implementations, in small blocks so that lists extend over many tiles."""
    if request.param == "torch":
        monkeypatch.setattr(neighbors, "nearest_cy", None)
    if request.param == "int8":
        monkeypatch.setattr(k_reciprocal, "prefer_integers", lambda device, work: True)
    monkeypatch.setattr(tiles, "ROWS_CPU", 7)
    monkeypatch.setattr(neighbors, "COLUMNS", 40)
    monkeypatch.setattr(k_reciprocal, "COLUMNS", 40)


def features(num_query=13, num_gallery=60, seed=0, dims=16):
    generator = np.random.default_rng(seed)
    both = clustered_features(generator, generator.integers(0, 8, num_query + num_gallery), dims)
    return both[:num_query], both[num_query:]


@pytest.mark.parametrize(
    "k1, k2, lambda_value", [(20, 6, 0.3), (7, 3, 0.5), (5, 1, 0.0), (15, 16, 0.9), (1, 1, 0.3)]
)
def test_equals_the_reference(path, k1, k2, lambda_value):
    for seed in range(3):
        query, gallery = features(seed=seed)
        found = rerank_distances(query, gallery, k1=k1, k2=k2, lambda_value=lambda_value)
        expected = reference_rerank(query, gallery, k1=k1, k2=k2, lambda_value=lambda_value)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=3e-6)


def test_larger_random_set(path):
    query, gallery = features(60, 240, seed=5, dims=8)
    expected = reference_rerank(query, gallery, k1=12, k2=4)
    np.testing.assert_allclose(rerank_distances(query, gallery, k1=12, k2=4), expected, atol=3e-6)


@pytest.mark.parametrize("k1, k2", [(20, 6), (6, 3), (3, 1)])
def test_ties_and_duplicates(path, k1, k2):
    both = sign_features(np.random.default_rng(0), 90)
    both[40:50] = both[:10]
    found = rerank_distances(both[:13], both[13:], k1=k1, k2=k2)
    np.testing.assert_allclose(
        found, reference_rerank(both[:13], both[13:], k1=k1, k2=k2), atol=1e-6
    )


@pytest.mark.parametrize("num_gallery", [1, 2, 9])
def test_fewer_items_than_neighbors(path, num_gallery):
    query, gallery = features(3, num_gallery)
    found = rerank_distances(query, gallery)
    expected = reference_rerank(query, gallery)
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


def degenerate(kind, seed):
    """Features with exact ties that float32 rounding would order at random."""
    generator = np.random.default_rng(seed)
    num_query, num_gallery = generator.integers(2, 20), generator.integers(5, 80)
    num = num_query + num_gallery
    dims = {"one dimension": 1, "zeros": 3, "zeros and ones": 1}.get(kind, 8)
    both = generator.normal(size=(num, dims)).astype(np.float32)
    if kind.startswith("zeros"):
        both[generator.random(num) < 0.4] = 0
    if kind == "scaled copies":
        both = both[generator.integers(0, 4, num)] * generator.choice([0.1, 1, 7], (num, 1))
        both = both.astype(np.float32)
        both[:, 1:] = 0
    ids = random_ids(generator, num_query, num_gallery, num_pids=3)
    return both[:num_query], both[num_query:], ids


@pytest.mark.skipif(neighbors.nearest_cy is None, reason="the kernels are not built")
@pytest.mark.parametrize("kind", ["one dimension", "zeros", "zeros and ones", "scaled copies"])
def test_compiled_and_numpy_results_agree_on_ties(kind):
    compared = 0
    for seed in range(40):
        query, gallery, ids = degenerate(kind, seed)
        rerank = Rerank(k1=5 + seed % 20, k2=1 + seed % 6, lambda_value=(0.0, 0.3, 1.0)[seed % 3])
        try:
            compiled = evaluate_features(query, gallery, *ids, rerank=rerank)
        except ValueError as error:
            assert "has a match" in str(error)
            continue
        plain = evaluate_features(query, gallery, *ids, rerank=rerank, backend="python")
        np.testing.assert_array_equal(compiled.ap, plain.ap)
        np.testing.assert_array_equal(compiled.cmc, plain.cmc)
        compared += 1
    assert compared > 30


def test_all_items_equal(path):
    ones = np.ones((30, 4), np.float32)
    found = rerank_distances(ones[:4], ones[4:])
    assert np.isfinite(found).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_scores_without_the_matrix_are_those_of_the_matrix(path, metric):
    query, gallery = features(20, 90, seed=3)
    # With unit features both metrics are the same.
    if metric == "euclidean":
        query, gallery = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (query, gallery))
    ids = random_ids(np.random.default_rng(1), 20, 90)
    # Junk must not influence the neighborhoods.
    kept = ids[1] != -1
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
            r"k2 must be at most k1 \+ 1, .* that are kept, found k2 5 and k1 3.",
        ),
        ({"lambda_value": -0.1}, "lambda_value must be a number between 0 and 1, found -0.1."),
        (
            {"lambda_value": float("nan")},
            "lambda_value must be a number between 0 and 1, found nan.",
        ),
    ],
)
def test_invalid_arguments_are_refused(options, message):
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
