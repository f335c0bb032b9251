"""Ranks of re-ranked matches from a bound, without computing whole rows.

A gallery entry that shares no weight with query i has Jaccard distance 1. If it is not among the k
nearest of i either, of which n is the last, its re-ranked distance (eq. 12) is at least
    (1 - lambda) + lambda D'[i, n]
If all true matches are nearer than that, such entries are ranked after them. The ranks depend
only on the few hundred others, and of these, only the entries whose Jaccard distance puts them
before the farthest match are measured. The remaining queries need the product of their features
with the whole gallery.
Letters: Q queries, N items, M matches of all valid queries.
"""

import logging

import numpy as np

from ..ranking import Matches, num_threads
from .k_reciprocal import Encoding
from .neighbors import jaccard_cy, progress

logger = logging.getLogger("ember.evaluate")

LARGEST = np.finfo(np.float32).max
# Per kernel call; Ctrl-C works between calls.
QUERIES_AT_ONCE = 1024


def fill_bounded_ranks(
    ranks: np.ndarray, numbers: np.ndarray, *, encoding: Encoding, matches: Matches
) -> np.ndarray:
    """Fill the ranks [M] of those valid queries `numbers` for which the bound is sufficient.

    Returns:
        The numbers of the other queries.
    """
    features, lambda_value = encoding.features, encoding.lambda_value
    query, gallery, neighbors = encoding.query, encoding.gallery, encoding.neighbors
    num_query = query.shape[0]
    indices = neighbors.indices[:num_query].numpy()
    # Every item is a neighbor.
    if indices.shape[1] == features.num_items:
        beyond = np.full(num_query, LARGEST)
    else:
        beyond = neighbors.distances[:num_query, -1].numpy() - np.float32(features.rounding)
    arguments = (
        features.arrays(),
        features.constant,
        features.resolution,
        query.indptr,
        (query.indices, query.data, gallery.indptr, gallery.indices, gallery.data),
        indices,
        np.maximum(beyond, 0),
        lambda_value / neighbors.farthest[:num_query].numpy(),
        lambda_value,
    )
    sparse_rows = (
        matches.queries,
        matches.starts,
        matches.columns,
        matches.excluded_starts,
        matches.excluded_columns,
    )
    remaining = [numbers[:0]]
    for start in progress(range(0, len(numbers), QUERIES_AT_ONCE), "ranks by bounds"):
        piece = numbers[start : start + QUERIES_AT_ONCE]
        done = jaccard_cy.rank_by_bounds(*arguments, piece, sparse_rows, ranks, num_threads())
        remaining.append(piece[np.frombuffer(done, np.uint8) == 0])
    others = np.concatenate(remaining)
    logger.info(
        "bounds give the ranks of %d of %d queries", len(numbers) - len(others), len(numbers)
    )
    return others
