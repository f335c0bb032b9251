"""Synthetic inputs for the tests of evaluate/."""

import numpy as np


def random_ids(generator, num_query, num_gallery, num_pids=5, num_cams=3, junk=True):
    """(query_pids, gallery_pids, query_camids, gallery_camids), with some junk in the gallery."""
    return (
        generator.integers(0, num_pids, num_query),
        generator.integers(-1 if junk else 0, num_pids, num_gallery),
        generator.integers(0, num_cams, num_query),
        generator.integers(0, num_cams, num_gallery),
    )


def clustered_features(generator, pids, dims=16, noise=0.6):
    """Features float32 [N, D] around one random center per identity."""
    centers = np.random.default_rng(7).normal(size=(int(max(pids)) + 2, dims))
    return (centers[pids] + noise * generator.normal(size=(len(pids), dims))).astype(np.float32)


def sign_features(generator, num, dims=8, num_nonzero=4):
    """Features float32 [num, dims] with a few entries of +-1: products are exact, ties many."""
    features = np.zeros((num, dims), np.float32)
    for row in features:
        row[generator.choice(dims, num_nonzero, replace=False)] = generator.choice(
            [-1, 1], num_nonzero
        )
    return features
