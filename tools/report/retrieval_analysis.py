"""Analysis of a test set beyond its score: best and worst queries, cameras, likely label errors.

Letters: Q queries, G gallery entries, D dimensions of an embedding.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from ember_reid.engine.ranked_lists import ListOptions, RankedQuery, ranked_lists
from ember_reid.evaluate import (
    QueryGallery,
    RankScores,
    distance_blocks,
    evaluate_features,
    label_block,
)
from ember_reid.tools.calibrate.calibration import Histograms, collect_histograms
from torch import Tensor

KINDS = ("best", "median", "worst", "suspect")
MOST_CAMERAS = 20  # camera pairs are scored one by one, up to so many cameras
GROUPS = ((1, 1), (2, 4), (5, 9), (10, 19), (20, 10**9))  # true matches of a query


class Labeled(NamedTuple):
    """Embeddings with their labels: float32 [N, D], int64 [N], [N]."""

    features: Tensor
    pids: np.ndarray
    camids: np.ndarray

    def take(self, chosen: np.ndarray) -> "Labeled":
        return Labeled(
            self.features[torch.from_numpy(chosen)], self.pids[chosen], self.camids[chosen]
        )


class Nearest(NamedTuple):
    """Nearest match, nearest other identity and number of matches of each query."""

    same: np.ndarray  # float32 [Q], inf without a match
    different: np.ndarray  # float32 [Q]
    num_matches: np.ndarray  # int64 [Q]


@dataclass(frozen=True)
class CameraScore:
    """mAP, and the number of queries that count."""

    mAP: float
    count: int


@dataclass(frozen=True)
class RetrievalAnalysis:
    """One test set, examined."""

    name: str
    protocol: str
    mAP: float
    cmc: np.ndarray  # [max_rank]
    histograms: Histograms
    # (query camera, gallery camera) -> score
    camera_pairs: dict[tuple[int, int], CameraScore]
    match_counts: dict[str, tuple[float, int]]  # number of matches -> mean AP, queries
    lists: tuple[RankedQuery, ...]  # `choice` is one of KINDS
    notes: dict[int, str]  # about suspects, by index of the query


def analyze_retrieval(
    query: Labeled,
    gallery: Labeled,
    *,
    name: str = "",
    metric: str = "cosine",
    protocol: str = "cross-camera",
    count: int = 6,
    top: int = 10,
) -> RetrievalAnalysis:
    """Analyze the embeddings of a test set.

    Protocols other than "all" are analyzed by the rules of "cross-camera".

    Raises:
        ValueError: no query has a match.
    """
    rule = protocol if protocol == "all" else "cross-camera"
    if rule == "all":  # no camera of a query equals one of the gallery, so nothing is left out
        scored = (
            query._replace(camids=query.camids * 0),
            gallery._replace(camids=gallery.camids * 0 + 1),
        )
    else:
        scored = query, gallery
    scores = _score(*scored, metric)
    nearest = find_nearest(*scored, metric=metric)
    valid = np.flatnonzero(nearest.num_matches)
    histograms = collect_histograms(_pair(*scored), metric=metric)
    suspects, notes = find_suspects(
        nearest, quantile(histograms, 0.5), quantile(histograms, 0.9), count=count
    )
    chosen = choose(valid, scores.ap, count=count) | {"suspect": suspects}
    lists = [
        ranked
        for kind in KINDS
        for ranked in _rank(
            query, gallery, chosen[kind], kind=kind, top=top, metric=metric, rule=rule
        )
    ]
    return RetrievalAnalysis(
        name,
        protocol,
        float(scores.mAP),
        scores.cmc,
        histograms,
        score_camera_pairs(query, gallery, metric=metric, rule=rule),
        score_match_counts(nearest.num_matches[valid], scores.ap),
        tuple(lists),
        notes,
    )


def _score(query: Labeled, gallery: Labeled, metric: str) -> RankScores:
    return evaluate_features(*_pair(query, gallery), metric=metric)


def _pair(query: Labeled, gallery: Labeled) -> QueryGallery:
    columns = zip(query, gallery, strict=True)
    return QueryGallery(*(rows for column in columns for rows in column))


def find_nearest(query: Labeled, gallery: Labeled, *, metric: str = "cosine") -> Nearest:
    """Distances to the nearest match under another camera and to the nearest other identity."""
    ids = tuple(
        torch.from_numpy(array)
        for array in (query.pids, gallery.pids, query.camids, gallery.camids)
    )
    found = []
    for first, last, distances in distance_blocks(
        query.features, gallery.features, metric=metric, copies=6
    ):
        match, other = label_block(ids, first, last)
        nearest = (
            distances.masked_fill(~mask, float("inf")).amin(dim=1) for mask in (match, other)
        )
        found.append((*nearest, match.sum(dim=1)))
    return Nearest(*(torch.cat(parts).numpy() for parts in zip(*found, strict=True)))


def find_suspects(
    nearest: Nearest, near: float, far: float, *, count: int
) -> tuple[list[int], dict[int, str]]:
    """Queries whose label may be wrong, the largest gap first, with a note on each.

    A suspect has another identity within `near`, the median distance of true pairs, and no match
    within `far`, the 90% quantile.
    """
    gap = np.where(np.isfinite(nearest.same), nearest.same, -np.inf) - nearest.different
    suspects = np.flatnonzero(
        (nearest.different <= near) & (nearest.same > far) & np.isfinite(gap) & (gap > 0)
    )
    suspects = suspects[np.argsort(-gap[suspects], kind="stable")][:count].tolist()
    notes = {
        k: "Likely label error, or two who look alike: another identity is at "
        f"{nearest.different[k]:.3f}, nearer than half of all true pairs ({near:.3f}); its own "
        f"identity begins at {nearest.same[k]:.3f}, where nine in ten true pairs ({far:.3f}) are "
        "nearer."
        for k in suspects
    }
    return suspects, notes


def quantile(histograms: Histograms, share: float) -> float:
    """The distance up to which `share` of the same-identity pairs lie, to the end of a bin."""
    cumulative = histograms.same.sum(axis=0).cumsum()
    return float(histograms.edges[1 + np.searchsorted(cumulative, share * cumulative[-1])])


def choose(valid: np.ndarray, ap: np.ndarray, *, count: int) -> dict[str, list[int]]:
    """Indices of the best, median and worst queries by average precision, without duplicates."""
    order = valid[np.argsort(-ap, kind="stable")].tolist()
    count = min(count, max(len(order) // 3, 1))
    middle = max((len(order) - count) // 2, 0)
    best, worst = order[:count], [k for k in order[::-1][:count] if k not in order[:count]]
    median = [k for k in order[middle : middle + count] if k not in best and k not in worst]
    return {"best": best, "median": median, "worst": worst}


def _rank(
    query: Labeled,
    gallery: Labeled,
    chosen: list[int],
    *,
    kind: str,
    top: int,
    metric: str,
    rule: str,
):
    """The lists of these queries, in their order."""
    if not chosen:
        return []
    few = query.take(np.array(chosen))
    options = ListOptions(count=len(chosen), top=top, metric=metric, protocol=rule)
    lists = sorted(ranked_lists(_pair(few, gallery), options), key=lambda ranked: ranked.index)
    return [replace(ranked, index=chosen[ranked.index], choice=kind) for ranked in lists]


def score_camera_pairs(
    query: Labeled, gallery: Labeled, *, metric: str = "cosine", rule: str = "cross-camera"
) -> dict[tuple[int, int], CameraScore]:
    """Score the queries of each camera in the gallery of each camera.

    Returns:
        (query camera, gallery camera) -> score; empty if there are more than `MOST_CAMERAS`.
    """
    cameras = np.unique(np.concatenate([query.camids, gallery.camids]))
    if len(cameras) > MOST_CAMERAS:
        return {}
    scores = {}
    for query_camid in cameras.tolist():
        queries = query.take(np.flatnonzero(query.camids == query_camid))
        for camid in cameras.tolist():
            entries = gallery.take(np.flatnonzero((gallery.camids == camid) & (gallery.pids != -1)))
            if query_camid == camid and rule == "cross-camera":
                continue
            matched = queries.take(np.flatnonzero(np.isin(queries.pids, entries.pids)))
            if len(matched.pids):
                # A camera of its own, so that nothing is excluded.
                matched = matched._replace(camids=np.full_like(matched.camids, -1))
                result = _score(matched, entries, metric)
                scores[query_camid, camid] = CameraScore(float(result.mAP), int(result.num_valid))
    return scores


def score_match_counts(num_matches: np.ndarray, ap: np.ndarray) -> dict[str, tuple[float, int]]:
    """mAP of queries with few and with many matches; groups without a query are left out."""
    scores = {}
    for low, high in GROUPS:
        group = (num_matches >= low) & (num_matches <= high)
        if group.any():
            label = (
                str(low)
                if low == high
                else f"{low} to {high}"
                if high < 10**9
                else f"{low} or more"
            )
            scores[label] = (float(ap[group].mean()), int(group.sum()))
    return scores
