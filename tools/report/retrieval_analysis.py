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
# Camera pairs are scored one by one up to this number of cameras.
MAX_CAMERAS = 20
# Ranges of the number of true matches of a query.
MATCH_COUNT_RANGES = ((1, 1), (2, 4), (5, 9), (10, 19), (20, 10**9))


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
    """Distances to the nearest entries of each query, and its number of matches.

    Attributes:
        same: float32 [Q], distance to the nearest match; inf without a match.
        different: float32 [Q], distance to the nearest other identity.
        num_matches: int64 [Q].
    """

    same: np.ndarray
    different: np.ndarray
    num_matches: np.ndarray


@dataclass(frozen=True)
class CameraScore:
    """mAP, and the number of queries with a match."""

    mAP: float
    count: int


@dataclass(frozen=True)
class RetrievalAnalysis:
    """The analysis of a test set.

    Attributes:
        cmc: [max_rank].
        camera_pairs: (query camera, gallery camera) -> score.
        match_counts: number of matches -> (mean AP, number of queries).
        lists: ranked lists; their `choice` is one of KINDS.
        notes: index of the query -> why its label is suspect.
    """

    name: str
    protocol: str
    mAP: float
    cmc: np.ndarray
    histograms: Histograms
    camera_pairs: dict[tuple[int, int], CameraScore]
    match_counts: dict[str, tuple[float, int]]
    lists: tuple[RankedQuery, ...]
    notes: dict[int, str]


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
    if rule == "all":
        # With disjoint cameras of queries and gallery, no entry is excluded.
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
    """Find queries whose label may be wrong, by decreasing gap, with a note on each.

    A query is suspect if another identity is within `near`, the median distance of true pairs,
    and no match is within `far`, the 90% quantile.
    """
    gap = np.where(np.isfinite(nearest.same), nearest.same, -np.inf) - nearest.different
    suspects = np.flatnonzero(
        (nearest.different <= near) & (nearest.same > far) & np.isfinite(gap) & (gap > 0)
    )
    suspects = suspects[np.argsort(-gap[suspects], kind="stable")][:count].tolist()
    notes = {
        k: "Likely label error, or two similar identities: another identity is at "
        f"{nearest.different[k]:.3f}, nearer than half of all true pairs ({near:.3f}); the nearest "
        f"image of its own identity is at {nearest.same[k]:.3f}, farther than nine in ten true "
        f"pairs ({far:.3f})."
        for k in suspects
    }
    return suspects, notes


def quantile(histograms: Histograms, share: float) -> float:
    """The distance (end of a bin) within which `share` of the same-identity pairs lie."""
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
    """The ranked lists of these queries, in order."""
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
        (query camera, gallery camera) -> score; empty if there are more than `MAX_CAMERAS`.
    """
    cameras = np.unique(np.concatenate([query.camids, gallery.camids]))
    if len(cameras) > MAX_CAMERAS:
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
                # A separate camera number, so that nothing is excluded.
                matched = matched._replace(camids=np.full_like(matched.camids, -1))
                result = _score(matched, entries, metric)
                scores[query_camid, camid] = CameraScore(float(result.mAP), int(result.num_valid))
    return scores


def score_match_counts(num_matches: np.ndarray, ap: np.ndarray) -> dict[str, tuple[float, int]]:
    """mAP by the number of matches of a query; ranges without queries are left out."""
    scores = {}
    for low, high in MATCH_COUNT_RANGES:
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
