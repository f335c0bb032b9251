"""CMC, average precision and inverse negative penalty from the ranks of the true matches.

These scores depend only on the ranks of the matches. Only the gallery entries that are at most as
far away as the farthest match of a query are sorted; the compiled kernel counts them without
sorting.
Letters: Q queries, G gallery entries, V valid queries (with at least one match), M matches of all
valid queries, b queries of a block.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .inputs import (
    Ids,
    check_choice,
    check_distances,
    check_ids,
    check_max_rank,
)
from .reference import JUNK_PID, label_pairs

try:
    from .eval_cylib import rank_cy
except ImportError:
    rank_cy = None  # type: ignore[assignment]

logger = logging.getLogger("ember.evaluate")

BACKENDS = ("auto", "cython", "python")
AVERAGE_PRECISIONS = ("mean", "trapezoid")
_state = {"forked": False, "warned": False}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _state.update(forked=True))


@dataclass(frozen=True, eq=False)
class RankScores:
    """Scores of one evaluation, fractions in [0, 1].

    Attributes:
        cmc: float64 [max_rank], the share of valid queries with a match among the first k.
        ap: float64 [V], average precision of each valid query.
        inp: float64 [V], inverse negative penalty: number of matches / rank of the last one.
        num_valid: V, the number of queries that have a match.
        valid: int64 [V], which queries these are.
    """

    cmc: np.ndarray
    ap: np.ndarray
    inp: np.ndarray
    num_valid: int
    valid: np.ndarray

    @property
    def mAP(self) -> float:
        return float(self.ap.mean())

    @property
    def mINP(self) -> float:
        return float(self.inp.mean())


@dataclass(frozen=True, eq=False)
class Matches:
    """Matches and excluded entries as sparse rows, one per valid query.

    Attributes:
        queries: int64 [V], rows of the distance matrix.
        starts: int64 [V + 1]; the matches of query v are columns[starts[v]:starts[v + 1]].
        columns: int64 [M], rising within a query.
        excluded_starts: int64 [V + 1], the same for the entries of its own identity and camera.
        excluded_columns: int64.
        junk: int64, entries that are excluded for every query.
    """

    queries: np.ndarray
    starts: np.ndarray
    columns: np.ndarray
    excluded_starts: np.ndarray
    excluded_columns: np.ndarray
    junk: np.ndarray

    def select(self, numbers: np.ndarray) -> tuple["Matches", np.ndarray]:
        """The matches of some valid queries, int64 [b], for a matrix with one row for each.

        Also returns where these matches are in `columns`.
        """
        starts, places = select_sparse_rows(self.starts, numbers)
        excluded_starts, excluded_places = select_sparse_rows(self.excluded_starts, numbers)
        part = Matches(
            queries=np.arange(len(numbers)),
            starts=starts,
            columns=self.columns[places],
            excluded_starts=excluded_starts,
            excluded_columns=self.excluded_columns[excluded_places],
            junk=self.junk,
        )
        return part, places


def select_sparse_rows(starts: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts [b + 1] of the selected sparse rows, and where their entries are in the old arrays."""
    lengths = starts[numbers + 1] - starts[numbers]
    selected = row_starts(lengths)
    return selected, np.arange(selected[-1]) + np.repeat(starts[numbers] - selected[:-1], lengths)


def row_starts(lengths: np.ndarray) -> np.ndarray:
    """Where sparse rows of these lengths start, and after the last one their end."""
    return np.concatenate(([0], np.cumsum(lengths)))


def find_matches(ids: Ids) -> Matches:
    """The matches and excluded entries of every query, by the rule of `reference.label_pairs`.

    Raises:
        ValueError: no query has a match.
    """
    num_query = len(ids.query_pids)
    # Only entries with the query's identity can be matches: find them in the sorted gallery.
    order = np.argsort(ids.gallery_pids, kind="stable")
    sorted_pids = ids.gallery_pids[order]
    low = np.searchsorted(sorted_pids, ids.query_pids, side="left")
    counts = np.searchsorted(sorted_pids, ids.query_pids, side="right") - low
    owner = np.repeat(np.arange(num_query), counts)
    position = np.arange(counts.sum()) - np.repeat(row_starts(counts)[:-1], counts)
    columns = order[np.repeat(low, counts) + position]
    is_match, is_excluded = label_pairs(
        ids.query_pids[owner],
        ids.gallery_pids[columns],
        ids.query_camids[owner],
        ids.gallery_camids[columns],
    )

    num_matches = np.bincount(owner[is_match], minlength=num_query)
    num_excluded = np.bincount(owner[is_excluded], minlength=num_query)
    valid = num_matches > 0
    if not valid.any():
        raise ValueError(
            f"None of the {num_query} queries has a match in the gallery under another camera: "
            "check that both sets number the identities in the same way and that the cameras "
            "differ (data without cameras: pass camera ids that differ)."
        )
    return Matches(
        queries=np.flatnonzero(valid),
        starts=row_starts(num_matches[valid]),
        columns=columns[is_match],
        excluded_starts=row_starts(num_excluded[valid]),
        excluded_columns=columns[is_excluded & valid[owner]],
        junk=np.flatnonzero(ids.gallery_pids == JUNK_PID),
    )


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
    """Scores of a distance matrix.

    Gallery entries of the query's own identity and camera are excluded, and so is junk (pid -1)
    for every query. Queries without a remaining match do not count. Equal distances keep gallery
    order. For data without cameras, pass camera ids that differ between queries and gallery (or
    the image's own number if both sets contain the same images).

    Args:
        distances: float [Q, G], finite, smaller is closer; torch or numpy.
        query_pids, gallery_pids, query_camids, gallery_camids: int [Q], [G], [Q], [G].
        max_rank: length of the CMC curve, at most 1,000,000. If the gallery is smaller, the curve
            is padded with its last value.
        backend: "cython", "python" (same results) or "auto", the compiled kernel if it was built.
        average_precision: "mean" of the precision at each match, or "trapezoid", the area under
            the interpolated precision-recall curve (used by the published tables of VKD).

    Raises:
        ValueError: one sentence about the first invalid argument.
    """
    check_max_rank(max_rank)
    check_choice(average_precision, "average_precision", AVERAGE_PRECISIONS)
    count_ranks = choose_backend(backend)
    distances = check_distances(distances)
    ids = check_ids(query_pids, gallery_pids, query_camids, gallery_camids, *distances.shape)
    matches = find_matches(ids)
    return scores_from_ranks(count_ranks(distances, matches), matches, max_rank, average_precision)


def scores_from_ranks(
    ranks: np.ndarray, matches: Matches, max_rank: int, average_precision: str = "mean"
) -> RankScores:
    """Scores in float64 from the 0-based ranks of all matches, int64 [M], rising in a query."""
    starts = matches.starts
    counts = np.diff(starts)
    # How many matches of the same query are ranked before this one.
    num_before = np.arange(len(ranks)) - np.repeat(starts[:-1], counts)
    precision = (num_before + 1) / (ranks + 1)
    if average_precision == "trapezoid":
        # The mean of the precision at the match and at the entry before it.
        previous = np.where(ranks == 0, 1.0, num_before / np.maximum(ranks, 1))
        precision = (precision + previous) / 2
    hits = np.bincount(ranks[starts[:-1]], minlength=max_rank)[:max_rank]
    return RankScores(
        cmc=np.cumsum(hits) / len(counts),
        ap=np.add.reduceat(precision, starts[:-1]) / counts,
        inp=counts / (ranks[starts[1:] - 1] + 1),
        num_valid=len(counts),
        valid=matches.queries,
    )


def count_ranks_python(distances: np.ndarray, matches: Matches) -> np.ndarray:
    """Ranks of all matches, int64 [M]: how many entries that count are nearer; rising in a query.

    Args:
        distances: float32 or float64 [Q, G].
    """
    # 1: match, -1: excluded, 0: negative.
    relation = np.zeros(distances.shape[1], np.int8)
    relation[matches.junk] = -1
    ranks = np.empty(len(matches.columns), np.int64)
    for v, query in enumerate(matches.queries):
        row = distances[query]
        if not (np.isfinite(row.min()) and np.isfinite(row.max())):
            raise_not_finite(query)
        mine = slice(matches.starts[v], matches.starts[v + 1])
        columns = matches.columns[mine]
        excluded = slice(matches.excluded_starts[v], matches.excluded_starts[v + 1])
        excluded_columns = matches.excluded_columns[excluded]
        relation[columns], relation[excluded_columns] = 1, -1
        # Entries that may come before a match, in gallery order.
        near = np.flatnonzero(row <= row[columns].max())
        near = near[relation[near] >= 0]
        near = near[np.argsort(row[near], kind="stable")]
        ranks[mine] = np.flatnonzero(relation[near])
        relation[columns], relation[excluded_columns] = 0, 0
    return ranks


def count_ranks_cython(distances: np.ndarray, matches: Matches) -> np.ndarray:
    """The same as `count_ranks_python` with the compiled kernel, in parallel over queries."""
    ranks = np.empty(len(matches.columns), np.int64)
    bad_row = rank_cy.count_ranks(
        np.ascontiguousarray(distances),
        matches.queries,
        matches.starts,
        matches.columns,
        matches.excluded_starts,
        matches.excluded_columns,
        matches.junk,
        ranks,
        num_threads(),
    )
    if bad_row >= 0:
        raise_not_finite(bad_row)
    return ranks


def raise_not_finite(query: int) -> None:
    """Raise ValueError for NaN and infinity."""
    raise ValueError(
        f"distances contain NaN or infinity, first in row {query}: such a row cannot be ranked."
    )


def num_threads() -> int:
    """Threads for the kernels: torch's number, or 1 in a forked process, where OpenMP may hang."""
    return 1 if _state["forked"] else torch.get_num_threads()


def choose_backend(backend: str) -> Callable[[np.ndarray, Matches], np.ndarray]:
    """The counting function of a backend; warns once if the kernel is missing."""
    check_choice(backend, "backend", BACKENDS)
    if backend == "python":
        return count_ranks_python
    if rank_cy is not None:
        return count_ranks_cython
    if backend == "cython":
        raise ValueError(
            "backend 'cython' needs the compiled kernel, which is not built: install a C compiler "
            "and run `pip install -e .` in the project, or choose 'python'."
        )
    if not _state["warned"]:
        _state["warned"] = True
        logger.warning(
            "The compiled ranking kernel is not built; numpy gives the same numbers, but slower "
            "(to build it, run `pip install -e .` with a C compiler)."
        )
    return count_ranks_python
