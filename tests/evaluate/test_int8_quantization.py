import logging

import numpy as np
import pytest
import torch
from ember_reid.evaluate import Rerank
from ember_reid.evaluate.fast import k_reciprocal, matmul_backends, neighbors
from ember_reid.evaluate.fast.int8_quantization import MAX_CODE, MAX_DIMS, create_codes
from ember_reid.evaluate.fast.matmul_backends import (
    PRODUCTS,
    prefer_integers,
    product_integers,
)
from ember_reid.evaluate.fast.neighbors import nearest_neighbors
from ember_reid.evaluate.fast.tiles import create_feature_matrix

needs_kernel = pytest.mark.skipif(neighbors.nearest_cy is None, reason="the kernels are not built")


def hard_features(kind, num=400, dims=48):
    """Features [num, dims] that are hard to quantize in one way."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(num, dims, generator=generator)
    # Identities
    features += 2 * torch.randn(20, dims, generator=generator)[torch.arange(num) % 20]
    if kind == "one-sided":
        features.relu_()
    if kind == "far from zero":
        features += 30
    if kind == "one large entry":
        features[:, 0] += 200 * torch.randn(num, generator=generator)
    if kind == "lengths":
        features *= 10 ** torch.linspace(-2, 2, num)[torch.randperm(num, generator=generator), None]
    if kind == "zeros":
        features[5::50] = 0
    if kind == "equal":
        features[100:200] = features[7]
    return features


KINDS = ["plain", "one-sided", "far from zero", "one large entry", "lengths", "zeros", "equal"]


def feature_matrix(features, metric="cosine"):
    return create_feature_matrix((features[:90].clone(), features[90:].clone()), metric)


def true_distances(features, metric):
    """In float64; a row of zeros is orthogonal to everything under cosine."""
    features = features.double()
    if metric == "cosine":
        features = features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return 2 - 2 * features @ features.t()
    return torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()


def test_hand_example():
    # The mean is 0; the largest entry of each row is 127 times its scale.
    features = torch.tensor([[127.0, 1.0], [-127.0, -1.0], [0.0, 254.0], [0.0, -254.0]])
    codes = create_codes(create_feature_matrix((features[:1], features[1:]), "euclidean"))
    assert codes.values.tolist() == [[127, 1], [-127, -1], [0, 127], [0, -127]]
    assert codes.scales.tolist() == [1, 1, 2, 2]
    assert codes.squares.tolist() == [127**2 + 1, 127**2 + 1, 254**2, 254**2]
    assert codes.errors.tolist() == [0, 0, 0, 0]
    assert codes.reaches.tolist()[2] == 2 * 254


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", KINDS)
def test_distances_of_codes_are_within_the_error_bound(kind, metric):
    features = hard_features(kind)
    matrix = feature_matrix(features, metric)
    codes = create_codes(matrix)
    values = codes.values.double() * codes.scales[:, None]
    found = codes.squares[:, None] + codes.squares - 2 * values @ values.t()
    spread = codes.errors[:, None] * codes.reaches
    error = (spread + spread.t() + codes.slack).double()
    wrong = (found - true_distances(features, metric)).abs()
    # By definition, independent of the codes.
    wrong.fill_diagonal_(0)
    assert bool((wrong <= error).all())
    # The quantization errors matter, not only the slack.
    assert float(wrong.max()) > 2 * (codes.slack - matrix.resolution)


def both(features, metric="cosine", k=9, block=32):
    options = {"compiled": True, "quantized": False}
    rows = feature_matrix(features, metric)
    expected = nearest_neighbors(rows, k, torch.nn.functional.linear, block, **options)
    return nearest_neighbors(
        rows, k, torch.nn.functional.linear, block, **options | {"quantized": True}
    ), expected


@needs_kernel
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", KINDS)
def test_neighbors_are_those_of_float32(kind, metric, monkeypatch):
    monkeypatch.setattr(neighbors, "COLUMNS", 50)
    features = hard_features(kind)
    found, expected = both(features, metric)
    # Both are multiples of the resolution; rounding errors move a few to the next multiple.
    rounding = 1.01 * feature_matrix(features, metric).resolution
    np.testing.assert_allclose(found.distances, expected.distances, rtol=0, atol=rounding)
    np.testing.assert_allclose(found.farthest, expected.farthest, rtol=0, atol=rounding)
    # Otherwise, rounding determines the order of nearly equal distances.
    if kind in ("plain", "one-sided"):
        assert torch.equal(found.indices, expected.indices)


@needs_kernel
@pytest.mark.parametrize("k", [1, 3, 9])
def test_ties_go_to_the_lower_position(k):
    # entries of +-1: all distances are exact, few are different
    features = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], (300, 8))).float()
    found, expected = both(features, "euclidean", k)
    for name in ("indices", "distances", "farthest"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


@needs_kernel
@pytest.mark.parametrize("near, far, text", [(2, 2, "search"), (1, 1, "search, 400 of 400")])
def test_candidate_lists_that_are_too_short(near, far, text, monkeypatch, caplog):
    monkeypatch.setattr(neighbors, "NUM_NEAR", near)
    monkeypatch.setattr(neighbors, "NUM_FAR", far)
    with caplog.at_level(logging.INFO, "ember"):
        found, expected = both(hard_features("plain"))
    assert text in caplog.text and "search, 0 of" not in caplog.text
    assert torch.equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.farthest, expected.farthest, rtol=1e-5)


@needs_kernel
def test_fewer_items_than_candidates():
    found, expected = both(hard_features("plain", 95), k=20)
    assert torch.equal(found.indices, expected.indices)


@needs_kernel
def test_codes_are_not_used_with_a_small_budget(monkeypatch):
    monkeypatch.setattr(k_reciprocal, "prefer_integers", lambda device, work: True)
    rows = feature_matrix(hard_features("plain"))
    assert k_reciprocal.plan_reranking(rows, 90, Rerank(), 0.01).quantized
    assert not k_reciprocal.plan_reranking(rows, 90, Rerank(), 0.005).quantized
    assert not k_reciprocal.plan_reranking(rows, 90, Rerank(), backend="python").quantized


def test_integer_products_are_exact():
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randint(-127, 128, (n, 300), generator=generator, dtype=torch.int8) for n in (5, 17)
    )
    out = torch.empty(5, 17, dtype=torch.int32)
    assert product_integers(left, right, out=out) is out
    assert torch.equal(out.long(), left.long() @ right.long().t())
    assert MAX_DIMS * MAX_CODE**2 < 2**31 <= (MAX_DIMS + 1) * MAX_CODE**2


@pytest.mark.parametrize("faster, preferred", [(10, True), (1, False), (float("nan"), False)])
def test_integers_are_used_if_they_are_fast(faster, preferred, monkeypatch):
    def seconds(runs, sums):
        assert all(float(run()[0, 0]) == sums[name] for name, run in runs.items())
        return dict.fromkeys(PRODUCTS, 1.0) | {matmul_backends.INTEGERS: 1 / faster}

    monkeypatch.setattr(matmul_backends, "_measured", {})
    monkeypatch.setattr(matmul_backends, "time_products", seconds)
    assert prefer_integers(torch.device("cpu"), 1e12) is preferred
    assert prefer_integers(torch.device("cpu"), 1e6) is False


def test_a_product_that_fails_or_rounds_is_not_chosen():
    def fails():
        raise RuntimeError("no such operator")

    runs = {"right": lambda: torch.ones(1, 1), "wrong": lambda: torch.zeros(1, 1), "fails": fails}
    seconds = matmul_backends.time_products(runs, dict.fromkeys(runs, 1.0))
    assert seconds["right"] < 1 and seconds["wrong"] == seconds["fails"] == float("inf")
