"""CMC, average precision and inverse negative penalty, from the ranks of the true matches alone.

Only the position of each match decides every one of these scores, so nothing is sorted but the gallery
entries at most as far away as a query's farthest match. The compiled kernel counts even those without
sorting.
Letters: Q queries, G gallery entries, V valid queries, M matches of all valid queries.
"""

import logging
import os
from typing import NamedTuple

import numpy as np
import torch

from .checks import check_choice, check_distances, check_ids, check_positive_int
from .matches import Matches, find_matches

try:
    from .eval_cylib import rank_cy
except ImportError:
    rank_cy = None

logger = logging.getLogger("ember.evaluate")

BACKENDS = ("auto", "cython", "python")
AVERAGE_PRECISIONS = ("mean", "trapezoid")
_state = {"forked": False, "told": False}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _state.update(forked=True))


class RankScores(NamedTuple):
    """Scores of one evaluation, fractions in [0, 1]; `ap`, `inp`, `valid` speak of the V valid queries."""

    cmc: (
        np.ndarray
    )  # float64 [max_rank]  share of valid queries with a match among the first k = 1..max_rank
    ap: np.ndarray  # float64 [V]          average precision
    inp: np.ndarray  # float64 [V]         number of matches / rank of the last one
    num_valid: int
    valid: np.ndarray  # int64 [V]         which queries were counted

    @property
    def mAP(self) -> float:
        return float(self.ap.mean())

    @property
    def mINP(self) -> float:
        return float(self.inp.mean())


def rank_metrics(
    distances,
    query_pids,
    gallery_pids,
    query_camids,
    gallery_camids,
    *,
    max_rank: int = 50,
    backend: str = "auto",
    average_precision: str = "mean",
) -> RankScores:
    """Scores of a given distance matrix.

    Gallery entries of the query's own identity and camera are left out, as is junk (pid -1) for every query;
    queries without a match left are not counted. Equal distances keep gallery order. Data without cameras:
    pass camera ids that differ between queries and gallery (or the image's own number, where both sets hold
    the same images).

    Args:
        distances: float [Q, G], smaller is closer; torch or numpy. Infinity is allowed, NaN is not.
        query_pids, gallery_pids, query_camids, gallery_camids: int [Q], [G], [Q], [G].
        max_rank: length of the CMC curve, padded with its last value when the gallery is shorter.
        backend: "cython", "python" (equal results) or "auto", the compiled kernel where it was built.
        average_precision: "mean" of the precision at each match, or "trapezoid", the area
            under the interpolated precision-recall curve (the published tables of VKD use it).
    Raises: ValueError with one sentence on the first thing that is wrong.
    """
    check_positive_int(max_rank, "max_rank")
    check_choice(average_precision, "average_precision", AVERAGE_PRECISIONS)
    count = choose_backend(backend)
    distances = check_distances(distances)
    num_query, num_gallery = distances.shape
    matches = find_matches(
        check_ids(query_pids, "query_pids", num_query),
        check_ids(gallery_pids, "gallery_pids", num_gallery),
        check_ids(query_camids, "query_camids", num_query),
        check_ids(gallery_camids, "gallery_camids", num_gallery),
    )
    ranks = count(distances, matches)
    return scores_from_ranks(ranks, matches, num_gallery, max_rank, average_precision)


def scores_from_ranks(
    ranks: np.ndarray,
    matches: Matches,
    num_gallery: int,
    max_rank: int,
    average_precision: str = "mean",
) -> RankScores:
    """Turns the 0-based ranks of all matches (int64 [M], rising within a query) into scores, in float64."""
    starts = matches.starts
    counts = np.diff(starts)
    nth = np.arange(len(ranks)) - np.repeat(
        starts[:-1], counts
    )  # how many matches of the same query came before
    precision = (nth + 1) / (ranks + 1)
    if (
        average_precision == "trapezoid"
    ):  # the mean of the precision at the match and just before it
        before = np.where(ranks == 0, 1.0, nth / np.maximum(ranks, 1))
        precision = (precision + before) / 2
    ap = np.add.reduceat(precision, starts[:-1]) / counts
    inp = counts / (ranks[starts[1:] - 1] + 1)
    hits = np.bincount(ranks[starts[:-1]], minlength=max_rank)[:max_rank]
    return RankScores(np.cumsum(hits) / len(counts), ap, inp, len(counts), matches.queries)


def count_ranks_python(distances: np.ndarray, matches: Matches) -> np.ndarray:
    """Ranks of all matches, int64 [M]: how many valid gallery entries come before; rising within a query."""
    relation = np.zeros(distances.shape[1], np.int8)  # 1: match, -1: left out
    relation[matches.junk] = -1
    ranks = np.empty(len(matches.columns), np.int64)
    for v, query in enumerate(matches.queries):
        row = distances[query]
        if np.isnan(row.min()):
            raise_nan(query)
        columns = matches.columns[matches.starts[v] : matches.starts[v + 1]]
        left_out = matches.left_columns[matches.left_starts[v] : matches.left_starts[v + 1]]
        relation[columns], relation[left_out] = 1, -1
        near = np.flatnonzero(
            row <= row[columns].max()
        )  # all that can come before a match, in gallery order
        near = near[relation[near] >= 0]
        near = near[np.argsort(row[near], kind="stable")]
        ranks[matches.starts[v] : matches.starts[v + 1]] = np.flatnonzero(relation[near])
        relation[columns], relation[left_out] = 0, 0
    return ranks


def count_ranks_cython(distances: np.ndarray, matches: Matches) -> np.ndarray:
    """The same by the compiled kernel, in parallel over queries."""
    distances = np.ascontiguousarray(distances)
    ranks = np.empty(len(matches.columns), np.int64)
    bad_row = rank_cy.count_ranks(
        distances,
        matches.queries,
        matches.starts,
        matches.columns,
        matches.left_starts,
        matches.left_columns,
        matches.junk,
        ranks,
        num_threads(),
    )
    if bad_row >= 0:
        raise_nan(bad_row)
    return ranks


def raise_nan(query: int) -> None:
    """Refuses a distance that is not a number."""
    raise ValueError(
        f"distances hold NaN, first found in row {query}: such a row cannot be ranked."
    )


def num_threads() -> int:
    """Threads for the kernels: torch's number; one in a forked process, where more would hang."""
    return 1 if _state["forked"] else torch.get_num_threads()


def choose_backend(backend: str):
    """The counting function behind a backend's name; says once that the kernel is missing."""
    check_choice(backend, "backend", BACKENDS)
    if backend == "python":
        return count_ranks_python
    if rank_cy is not None:
        return count_ranks_cython
    if backend == "cython":
        raise ValueError(
            "backend 'cython' needs the compiled kernel, which is not built here: run `pip install -e .` in "
            "the project with a C compiler installed, or choose 'python'."
        )
    if not _state["told"]:
        _state["told"] = True
        logger.warning(
            "The compiled ranking kernel is not built; ranking in numpy gives the same numbers, slower "
            "(`pip install -e .` with a C compiler builds it)."
        )
    return count_ranks_python
