"""Ranks of re-ranked matches without their rows: most queries are settled by what shares weights with them.

An entry of the gallery that shares no weight with query i has the Jaccard distance 1. When it is not among the k nearest
of i either, of which n is the last, then its final distance (`reranking`, eq. 12) is at least
    (1 - lambda) + lambda D'[i, n]
Where all true matches are nearer than that, such entries come behind them all. The ranks are decided by the few hundred
others, and of those only the ones are measured that their Jaccard distance leaves in front of the farthest match. Only the
queries that remain need the product of their features with the whole gallery.
Letters: Q queries, G gallery entries, N = Q + G, M matches of all valid queries.
"""

import logging

import numpy as np
from tqdm import tqdm

from ..matches import Matches
from ..ranking import num_threads
from ..reranking import Encoding
from .neighbors import rerank_cy
from .tiles import Rows

logger = logging.getLogger("ember.evaluate")

SECONDS_OF_SILENCE = 3  # progress bars appear only for work that takes longer
FARTHEST = np.finfo(np.float32).max
SETTLED = 1024  # queries done at once: Python sees Ctrl-C in between


def settle_reranked(
    numbers: np.ndarray, ranks: np.ndarray, *, encoding: Encoding, rows: Rows, matches: Matches
) -> np.ndarray:
    """Fills the ranks [M] of those valid queries `numbers` that can be settled; returns the numbers of the others."""
    num_query, keep = encoding.query.shape[0], encoding.lambda_value
    indices, distances, farthest = (tensor[:num_query].numpy() for tensor in encoding.neighbors)
    is_everything = indices.shape[1] == rows.num_items  # then nothing is apart
    apart = (
        np.full(num_query, FARTHEST)
        if is_everything
        else distances[:, -1] - np.float32(rows.rounding)
    )
    query, gallery = encoding.query, encoding.gallery
    arguments = (
        rows.arrays(),
        rows.constant,
        query.indptr,
        (query.indices, query.data, gallery.indptr, gallery.indices, gallery.data),
        indices,
        np.maximum(apart, 0),
        keep / farthest,
        keep,
    )
    left = []
    starts = range(0, len(numbers), SETTLED)
    for start in tqdm(starts, desc="settling", delay=SECONDS_OF_SILENCE, disable=None, leave=False):
        piece = numbers[start : start + SETTLED]
        settled = rerank_cy.settle_ranks(*arguments, piece, matches[:5], ranks, num_threads())
        left.append(piece[np.frombuffer(settled, np.uint8) == 0])
    left = np.concatenate([numbers[:0], *left])
    logger.info("neighborhoods settle %d of %d queries", len(numbers) - len(left), len(numbers))
    return left
