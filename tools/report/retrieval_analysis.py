"""Analysis of a test set beyond its score: best and worst queries, cameras, likely label errors.

Letters: Q queries, G gallery entries, D dimensions of an embedding.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from ember_reid.engine.ranked_lists import RankedQuery, ranked_lists
from ember_reid.evaluate import RankScores, distance_blocks, evaluate_features, label_block
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
    """Of each query: the distance to its nearest match, to the nearest other identity, and how many matches it has."""

    same: np.ndarray  # float32 [Q], inf without a match
    different: np.ndarray  # float32 [Q]
    num_matches: np.ndarray  # int64 [Q]


@dataclass(frozen=True)
class CameraScore:
    """mAP, and the number of queries that count."""

    mAP: float
    count: int


class RetrievalAnalysis(NamedTuple):
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
    """Look at a test set from its embeddings. The rules of "all" and "cross-camera" are used; others count as the latter.

    Raises ValueError when no query has a match.
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
    histograms = collect_histograms(
        scored[0].features,
        scored[1].features,
        scored[0].pids,
        scored[1].pids,
        scored[0].camids,
        scored[1].camids,
        metric=metric,
    )
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
    return evaluate_features(
        query.features,
        gallery.features,
        query.pids,
        gallery.pids,
        query.camids,
        gallery.camids,
        metric=metric,
    )


def find_nearest(query: Labeled, gallery: Labeled, *, metric: str = "cosine") -> Nearest:
    """Distances to the nearest match and to the nearest other identity; the query's own camera's matches do not count."""
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
    """Queries whose label may be wrong, the largest gap first, with a sentence on each.

    Another identity is within `near`, the median distance of true pairs, and all pictures of the query's own identity are
    beyond `far`, their 90% quantile: it looks like one of the others, and not like its own.
    """
    gap = np.where(np.isfinite(nearest.same), nearest.same, -np.inf) - nearest.different
    suspects = np.flatnonzero(
        (nearest.different <= near) & (nearest.same > far) & np.isfinite(gap) & (gap > 0)
    )
    suspects = suspects[np.argsort(-gap[suspects], kind="stable")][:count].tolist()
    notes = {
        k: f"Likely label error, or two who look alike: another identity is at {nearest.different[k]:.3f}, nearer than half "
        f"of all true pairs ({near:.3f}); its own identity begins at {nearest.same[k]:.3f}, where nine in ten "
        f"true pairs ({far:.3f}) are nearer."
        for k in suspects
    }
    return suspects, notes


def quantile(histograms: Histograms, share: float) -> float:
    """The distance up to which `share` of the same-identity pairs lie, to the end of a bin."""
    cumulative = histograms.same.sum(axis=0).cumsum()
    return float(histograms.edges[1 + np.searchsorted(cumulative, share * cumulative[-1])])


def choose(valid: np.ndarray, ap: np.ndarray, *, count: int) -> dict[str, list[int]]:
    """Positions of the best, the median and the worst queries by average precision, none of them twice."""
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
    lists = ranked_lists(
        few.features,
        gallery.features,
        few.pids,
        gallery.pids,
        few.camids,
        gallery.camids,
        queries="random",
        count=len(chosen),
        top=top,
        metric=metric,
        protocol=rule,
    )
    lists = sorted(lists, key=lambda ranked: ranked.index)
    return [ranked._replace(index=chosen[ranked.index], choice=kind) for ranked in lists]


def score_camera_pairs(
    query: Labeled, gallery: Labeled, *, metric: str = "cosine", rule: str = "cross-camera"
) -> dict[tuple[int, int], CameraScore]:
    """(query camera, gallery camera): (mAP, queries counted) when only that camera's pictures answer."""
    cameras = np.unique(np.concatenate([query.camids, gallery.camids]))
    if len(cameras) > MOST_CAMERAS:
        return {}
    scores = {}
    for asks in cameras.tolist():
        asking = query.take(np.flatnonzero(query.camids == asks))
        for answers in cameras.tolist():
            answering = gallery.take(
                np.flatnonzero((gallery.camids == answers) & (gallery.pids != -1))
            )
            if asks == answers and rule == "cross-camera":
                continue
            asking_too = asking.take(np.flatnonzero(np.isin(asking.pids, answering.pids)))
            if len(asking_too.pids):
                apart = asking_too._replace(camids=np.full_like(asking_too.camids, -1))
                result = _score(apart, answering, metric)
                scores[asks, answers] = CameraScore(float(result.mAP), int(result.num_valid))
    return scores


def score_match_counts(num_matches: np.ndarray, ap: np.ndarray) -> dict[str, tuple[float, int]]:
    """Mean average precision of queries with few and with many matches; groups without a query are left out."""
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
