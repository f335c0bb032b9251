"""Thresholds from distances of labeled pairs: histograms, bootstrap intervals, probabilities.

Letters: Q queries, G gallery entries, I query identities, B distance bins, T rates, R resamples.
"""

from typing import NamedTuple

import numpy as np
import torch
from ember_reid.evaluate import QueryGallery, distance_blocks, label_block
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

FITS = ("isotonic", "logistic")
NUM_BINS = 4096


class Histograms(NamedTuple):
    """Binned distances of all pairs of a query and a gallery entry, for each query identity.

    Attributes:
        edges: float64 [B + 1].
        same: float64 [I, B], pairs of the same identity under two cameras.
        different: float64 [I, B].
    """

    edges: np.ndarray
    same: np.ndarray
    different: np.ndarray

    @property
    def num_identities(self) -> int:
        return len(self.same)


def collect_histograms(
    sets: QueryGallery, *, metric: str = "cosine", num_bins: int = NUM_BINS
) -> Histograms:
    """Count the distances of all pairs in tiles.

    Junk and pairs of one identity under one camera are excluded.
    """
    ids = tuple(torch.from_numpy(np.asarray(array, dtype=np.int64)) for array in sets.ids)
    identities, rows = np.unique(np.asarray(sets.query_pids), return_inverse=True)
    edges = np.linspace(0, _largest(sets, metric), num_bins + 1)
    same, different = (np.zeros((len(identities), num_bins)) for _ in range(2))
    for first, last, distances in distance_blocks(
        sets.query, sets.gallery, metric=metric, copies=6
    ):
        bins = (distances * (num_bins / edges[-1])).long().clamp_(0, num_bins - 1)
        for counts, mask in zip((same, different), label_block(ids, first, last), strict=True):
            for k in range(last - first):
                counts[rows[first + k]] += torch.bincount(
                    bins[k][mask[k]], minlength=num_bins
                ).numpy()
    return Histograms(edges, same, different)


def _largest(sets: QueryGallery, metric: str) -> float:
    """An upper bound of all distances."""
    if metric == "cosine":
        return 2.0
    norms = [float(torch.as_tensor(rows).norm(dim=1).max()) for rows in (sets.query, sets.gallery)]
    return max(sum(norms) ** 2, 1e-6)


def intervals(
    histograms: Histograms,
    fmrs: tuple[float, ...],
    *,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals of threshold and of FNMR at each FMR, both [2, T] (low, high).

    Query identities are resampled with all their pairs. Pairs of one identity are not independent,
    so resampling pairs would underestimate the variance. The threshold is determined in each
    resample, exact to one bin.
    """
    rng = np.random.default_rng(seed)
    num_identities = histograms.num_identities
    same, different = (
        np.cumsum(counts, axis=1) for counts in (histograms.same, histograms.different)
    )
    found = []
    for _ in range(num_resamples):
        weights = np.bincount(
            rng.integers(num_identities, size=num_identities), minlength=num_identities
        )
        # Both [B]: the number of pairs up to the end of each bin.
        accepted, false = weights @ same, weights @ different
        if accepted[-1] and false[-1]:
            found.append(
                [_operating_point(histograms.edges, accepted, false, rate) for rate in fmrs]
            )
    # [2, T, 2]
    bounds = np.quantile(found, ((1 - confidence) / 2, (1 + confidence) / 2), axis=0)
    return bounds[..., 0], bounds[..., 1]


def _operating_point(edges, accepted, false, rate: float) -> tuple[float, float]:
    """Find the threshold within which at most `rate` of the different pairs lie, and its FNMR.

    The threshold is the end of a bin.
    """
    num_bins = int(np.searchsorted(false, rate * false[-1], side="right"))
    matched = accepted[num_bins - 1] / accepted[-1] if num_bins else 0.0
    return float(edges[num_bins]), float(1 - matched)


def fit_probability(
    histograms: Histograms, *, method: str = "isotonic", prior: float = 0.5, num_points: int = 65
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the probability that two images at a distance show the same identity.

    Pairs are weighted so that the share `prior` is of the same identity. Methods: isotonic
    (Zadrozny and Elkan 2002), logistic (Platt 1999).

    Returns:
        Distances [N] and probabilities [N], for linear interpolation with numpy.interp.
    """
    if method not in FITS:
        raise ValueError(f"the fit is '{method}', it must be one of {', '.join(FITS)}")
    centers = (histograms.edges[1:] + histograms.edges[:-1]) / 2
    same, different = histograms.same.sum(axis=0), histograms.different.sum(axis=0)
    weights = np.concatenate([same / same.sum() * prior, different / different.sum() * (1 - prior)])
    labels = np.concatenate([np.ones(len(centers)), np.zeros(len(centers))])
    distances, used = np.concatenate([centers, centers]), weights > 0
    distances, labels = distances[used], labels[used]
    weights = weights[used] * used.sum() / weights.sum()
    points = np.linspace(distances.min(), distances.max(), num_points)
    if method == "isotonic":
        model = IsotonicRegression(y_min=0, y_max=1, increasing=False, out_of_bounds="clip")
        return points, model.fit(distances, labels, sample_weight=weights).predict(points)
    # The regularization depends on the scale.
    scale = distances.std() or 1.0
    model = LogisticRegression(C=1e6).fit(distances[:, None] / scale, labels, sample_weight=weights)
    return points, model.predict_proba(points[:, None] / scale)[:, 1]


def half_open_gallery(query_pids, gallery_pids, *, seed: int) -> np.ndarray:
    """bool [G]: False for every second query identity, which becomes unknown."""
    identities = np.unique(query_pids)
    unknown = np.random.default_rng(seed).permutation(identities)[: len(identities) // 2]
    return ~np.isin(gallery_pids, unknown)
