"""Thresholds from distances of labeled pairs: histograms, bootstrap intervals, probabilities.

Letters: Q queries, G gallery entries, I query identities, B bins of distance, T rates, R resamples.
"""

from typing import NamedTuple

import numpy as np
import torch
from ember_reid.evaluate import distance_blocks, label_block
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

FITS = ("isotonic", "logistic")
NUM_BINS = 4096


class Histograms(NamedTuple):
    """Binned distances of all pairs of a query and a gallery entry, for each query identity."""

    edges: np.ndarray  # float64 [B + 1]
    same: np.ndarray  # float64 [I, B]       pairs of the same identity under two cameras
    different: np.ndarray  # float64 [I, B]

    @property
    def num_identities(self) -> int:
        return len(self.same)


def collect_histograms(
    query,
    gallery,
    query_pids,
    gallery_pids,
    query_camids,
    gallery_camids,
    *,
    metric: str = "cosine",
    num_bins: int = NUM_BINS,
) -> Histograms:
    """Count distances in tiles; junk and pairs of one identity and camera are left out. Features [Q, D], [G, D]."""
    arrays = (query_pids, gallery_pids, query_camids, gallery_camids)
    ids = tuple(torch.from_numpy(np.asarray(array, dtype=np.int64)) for array in arrays)
    identities, rows = np.unique(np.asarray(query_pids), return_inverse=True)
    edges = np.linspace(0, _largest(query, gallery, metric), num_bins + 1)
    same, different = (np.zeros((len(identities), num_bins)) for _ in range(2))
    for first, last, distances in distance_blocks(query, gallery, metric=metric, copies=6):
        bins = (distances * (num_bins / edges[-1])).long().clamp_(0, num_bins - 1)
        for counts, mask in zip((same, different), label_block(ids, first, last), strict=True):
            for k in range(last - first):
                counts[rows[first + k]] += torch.bincount(
                    bins[k][mask[k]], minlength=num_bins
                ).numpy()
    return Histograms(edges, same, different)


def _largest(query, gallery, metric: str) -> float:
    """A bound on all distances."""
    if metric == "cosine":
        return 2.0
    norms = [float(torch.as_tensor(features).norm(dim=1).max()) for features in (query, gallery)]
    return max(sum(norms) ** 2, 1e-6)


def intervals(
    histograms: Histograms,
    fmrs: tuple[float, ...],
    *,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals of threshold and FNMR at each FMR: [2, T] (low, high) twice.

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
        accepted, false = weights @ same, weights @ different  # [B] pairs up to the end of each bin
        if accepted[-1] and false[-1]:
            found.append(
                [_operating_point(histograms.edges, accepted, false, rate) for rate in fmrs]
            )
    bounds = np.quantile(found, ((1 - confidence) / 2, (1 + confidence) / 2), axis=0)  # [2, T, 2]
    return bounds[..., 0], bounds[..., 1]


def _operating_point(edges, accepted, false, rate: float) -> tuple[float, float]:
    """(threshold, FNMR): the end of the last bin up to which at most `rate` of the different pairs lie."""
    num_bins = int(np.searchsorted(false, rate * false[-1], side="right"))
    matched = accepted[num_bins - 1] / accepted[-1] if num_bins else 0.0
    return float(edges[num_bins]), float(1 - matched)


def fit_probability(
    histograms: Histograms, *, method: str = "isotonic", prior: float = 0.5, num_points: int = 65
) -> tuple[np.ndarray, np.ndarray]:
    """The probability that a pair at a distance is of the same identity: a falling curve through [N], [N] points.

    Same and different pairs are weighted so that `prior` of all are the same; between the points, and with the end values
    beyond them, the curve is linear (numpy.interp). isotonic: Zadrozny and Elkan 2002; logistic: Platt 1999.
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
    scale = distances.std() or 1.0  # so that the regularisation means the same for every metric
    model = LogisticRegression(C=1e6).fit(distances[:, None] / scale, labels, sample_weight=weights)
    return points, model.predict_proba(points[:, None] / scale)[:, 1]


def half_open_gallery(query_pids, gallery_pids, *, seed: int) -> np.ndarray:
    """bool [G]: excludes half of the query identities from the gallery, so that they are unknown."""
    identities = np.unique(query_pids)
    unknown = np.random.default_rng(seed).permutation(identities)[: len(identities) // 2]
    return ~np.isin(gallery_pids, unknown)
