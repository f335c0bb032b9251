"""Ranked lists: selected queries with their nearest gallery entries.

Letters: Q queries, G gallery entries, D dimensions of an embedding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from ember_reid.evaluate import QueryGallery, label_pairs

CHOICES = ("best", "worst", "random")


@dataclass(frozen=True)
class RankedEntry:
    """One entry of a ranked list."""

    # Index in the gallery.
    index: int
    pid: int
    camid: int
    distance: float
    correct: bool


@dataclass(frozen=True)
class RankedQuery:
    """A query and the first entries of its ranked gallery.

    Attributes:
        index: index in the query set.
        choice: why it was selected: best, worst or random.
        ap: average precision over the whole gallery, in [0, 1].
        num_matches: number of true matches in the whole gallery.
        entries: the nearest gallery entries, nearest first.
    """

    index: int
    pid: int
    camid: int
    choice: str
    ap: float
    num_matches: int
    entries: tuple[RankedEntry, ...]


@dataclass(frozen=True)
class ListOptions:
    """Which lists to create.

    Attributes:
        queries: best or worst (by average precision) or random. Queries without a match are never
            selected.
        count: number of queries.
        top: number of gallery entries per query.
        metric: cosine (1 - cosine) or euclidean.
        protocol: cross-camera excludes matches under the query's own camera; all keeps them.
        seed: for random queries.
    """

    queries: str = "random"
    count: int = 10
    top: int = 10
    metric: str = "cosine"
    protocol: str = "cross-camera"
    seed: int = 0


def ranked_lists(sets: QueryGallery, options: ListOptions) -> list[RankedQuery]:
    """Select queries and rank the gallery for each, by the rules of the scores.

    Args:
        sets: features as arrays or CPU tensors. Gallery entries with pid -1 (junk) are excluded.
        options: which lists to create.

    Returns:
        At most `options.count` lists, in the order of the selection.

    Raises:
        ValueError: an unknown option, arrays of different lengths, or no query with a match.
    """
    _check_choice("queries", options.queries, CHOICES)
    _check_choice("metric", options.metric, ("cosine", "euclidean"))
    _check_choice("protocol", options.protocol, ("cross-camera", "all"))
    sets = _as_arrays(sets, options.metric)
    if options.queries == "random":
        order = np.random.default_rng(options.seed).permutation(len(sets.query)).tolist()
    else:
        order = list(range(len(sets.query)))
    candidates = _rank_queries(sets, order, options)
    if options.queries == "random":
        selected = list(islice(candidates, options.count))
    else:
        by_ap = sorted(candidates, key=lambda one: one.ap, reverse=options.queries == "best")
        selected = by_ap[: options.count]
    if not selected:
        raise ValueError(
            f"None of the {len(sets.query)} queries has a match in the gallery of "
            f"{len(sets.gallery)} under the protocol '{options.protocol}', so there is no list to "
            "show"
        )
    return selected


def _as_arrays(sets: QueryGallery, metric: str) -> QueryGallery:
    """Check the shapes and convert to float32 and int64; normalize features for the cosine."""
    query, gallery = (
        np.asarray(features, dtype=np.float32) for features in (sets.query, sets.gallery)
    )
    arrays = QueryGallery(query, gallery, *(np.asarray(ids, dtype=np.int64) for ids in sets.ids))
    _check_shapes(arrays)
    if metric == "cosine":
        arrays = arrays._replace(query=_normalized(query), gallery=_normalized(gallery))
    return arrays


def _rank_queries(
    sets: QueryGallery, order: Sequence[int], options: ListOptions
) -> Iterator[RankedQuery]:
    """The ranked lists of the queries that have a match."""
    labels = sets.ignore_cameras() if options.protocol == "all" else sets
    for index in order:
        is_match, is_excluded = label_pairs(
            labels.query_pids[index],
            labels.gallery_pids,
            labels.query_camids[index],
            labels.gallery_camids,
        )
        kept = np.flatnonzero(~is_excluded)
        if is_match[kept].any():
            yield _rank_query(sets, index, kept, is_match[kept], options)


def _rank_query(
    sets: QueryGallery, index: int, kept: np.ndarray, is_match: np.ndarray, options: ListOptions
) -> RankedQuery:
    """Rank the gallery entries `kept` for one query; `is_match` belongs to `kept`."""
    distances = _distances(sets.query[index], sets.gallery[kept], options.metric)
    order = np.argsort(distances, kind="stable")
    ranks = np.flatnonzero(is_match[order])
    entries = tuple(
        RankedEntry(
            index=int(kept[k]),
            pid=int(sets.gallery_pids[kept[k]]),
            camid=int(sets.gallery_camids[kept[k]]),
            distance=float(distances[k]),
            correct=bool(is_match[k]),
        )
        for k in order[: options.top]
    )
    return RankedQuery(
        index=index,
        pid=int(sets.query_pids[index]),
        camid=int(sets.query_camids[index]),
        choice=options.queries,
        ap=float(np.mean(np.arange(1, len(ranks) + 1) / (ranks + 1))),
        num_matches=len(ranks),
        entries=entries,
    )


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is '{value}', it must be one of {', '.join(choices)}")


def _check_shapes(sets: QueryGallery) -> None:
    query, gallery = sets.query, sets.gallery
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"features must be [Q, D] and [G, D], they are {query.shape} and {gallery.shape}"
        )
    for name, features in (
        ("query_pids", query),
        ("query_camids", query),
        ("gallery_pids", gallery),
        ("gallery_camids", gallery),
    ):
        shape = getattr(sets, name).shape
        if shape != (len(features),):
            raise ValueError(
                f"{name} has the shape {shape}, {len(features)} features need ({len(features)},)"
            )


def _normalized(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _distances(query: np.ndarray, gallery: np.ndarray, metric: str) -> np.ndarray:
    if metric == "cosine":
        return 1 - gallery @ query
    return np.sqrt(np.square(gallery - query).sum(axis=1))
