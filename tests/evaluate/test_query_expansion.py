import numpy as np
import pytest
import torch
from ember_reid.evaluate import expand_features

from tests.helpers.synthetic import clustered_features


def direct(features, k, alpha):
    """Dense and in float64."""
    features = features.astype(np.float64)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    weights = np.maximum(np.take_along_axis(cosines, nearest, axis=1), 0) ** alpha
    return (weights[:, :, None] * features[nearest]).mean(axis=1)


@pytest.mark.parametrize("k, alpha, times", [(5, 3.0, 1), (10, 3.0, 2), (4, 0.0, 1), (500, 1.5, 1)])
def test_equals_the_definition(k, alpha, times):
    generator = np.random.default_rng(0)
    features = clustered_features(generator, generator.integers(0, 6, 80))
    query, gallery = expand_features(
        features[:20], features[20:], num_neighbors=k, alpha=alpha, times=times
    )
    expected = features
    for _ in range(times):
        expected = direct(expected, min(k, 80), alpha)
    np.testing.assert_allclose(np.concatenate((query, gallery)), expected, atol=1e-5)


def test_one_neighbor_is_the_item_itself():
    features = torch.randn(12, 8)
    query, gallery = expand_features(features[:4], features[4:], num_neighbors=1)
    torch.testing.assert_close(torch.cat((query, gallery)), features)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_neighbors": 0}, "num_neighbors must be a whole number of at least 1, found 0."),
        ({"times": 0}, "times must be a whole number of at least 1, found 0."),
        ({"alpha": -1.0}, "alpha must be a number of at least 0, found -1.0."),
        ({"memory_gib": -1}, "memory_gib must be above zero, found -1"),
    ],
)
def test_invalid_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        expand_features(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), **options)
