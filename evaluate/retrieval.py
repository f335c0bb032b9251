"""From features to scores in tiles: no distance matrix of all queries and the whole gallery is ever held.

Every block of queries sees its whole row of distances at once, so the distance of a match and the distances that are
counted against it come from the same tiles: equal features tie, whatever the shapes of the tiles.
Letters: Q queries, G gallery entries, D dimensions, b queries of a block, M matches of all valid queries.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from .checks import (
    check_budget,
    check_choice,
    check_feature_pair,
    check_ids,
    check_not_empty,
    check_positive_int,
)
from .device_ranking import count_ranks_torch
from .matches import Matches, find_matches
from .products import Product, choose_product, full_precision
from .ranking import AVERAGE_PRECISIONS, RankScores, choose_backend, scores_from_ranks
from .reranking import Rerank, check_rerank, encode, plan_reranking, use_compiled, write_reranked
from .tiles import COLUMNS, METRICS, Rows, create_rows, distance_tile, plan_blocks

SECONDS_OF_SILENCE = 3  # progress bars appear only for work that takes longer


def evaluate_features(
    query,
    gallery,
    query_pids,
    gallery_pids,
    query_camids,
    gallery_camids,
    *,
    metric: str = "cosine",
    rerank: Rerank | None = None,
    max_rank: int = 50,
    memory_gib: float | None = None,
    average_precision: str = "mean",
    backend: str = "auto",
) -> RankScores:
    """Scores of features, by the rules of `rank_metrics`.

    Args:
        query, gallery: features [Q, D], [G, D]; torch on any device (both on the same) or numpy; used as float32.
        metric: "cosine", or "euclidean" for features as they are.
        rerank: None, or `Rerank(k1, k2, lambda_value)`: rank by k-reciprocal encoding instead.
        memory_gib: budget for everything allocated beyond the given features (a copy of the gallery without junk, or
            in float32, included); None takes the fastest plan. The plan is logged first.
    Raises: ValueError with one sentence on the first thing that is wrong.
    """
    check_positive_int(max_rank, "max_rank")
    check_choice(metric, "metric", METRICS)
    check_choice(average_precision, "average_precision", AVERAGE_PRECISIONS)
    check_budget(memory_gib)
    if rerank is not None:
        rerank = check_rerank(rerank)
    query, gallery = check_feature_pair(query, gallery)
    query_pids = check_ids(query_pids, "query_pids", len(query))
    gallery_pids = check_ids(gallery_pids, "gallery_pids", len(gallery))
    query_camids = check_ids(query_camids, "query_camids", len(query))
    gallery_camids = check_ids(gallery_camids, "gallery_camids", len(gallery))
    kept = np.flatnonzero(gallery_pids != -1)
    if len(kept) < len(gallery):  # junk takes no part, in re-ranking neither
        check_not_empty(len(query), len(kept))
        gallery = gallery[torch.from_numpy(kept).to(gallery.device)]
        gallery_pids, gallery_camids = gallery_pids[kept], gallery_camids[kept]
    matches = find_matches(query_pids, gallery_pids, query_camids, gallery_camids)

    with torch.no_grad(), full_precision():
        rows = create_rows((query, gallery), metric)
        if rerank is None:
            work = 2.0 * len(query) * len(gallery) * rows.dims
            product = choose_product(rows.device, work)
            block = plan_ranking(rows, len(query), memory_gib)
            write = partial(write_plain, rows=rows, num_query=len(query), product=product)
        else:
            product = choose_product(rows.device, float(rows.num_items) ** 2 * rows.dims)
            block = plan_reranking(rows, len(query), rerank, memory_gib)
            encoding = encode(rows, len(query), rerank, product, block, compiled=use_compiled(rows, backend))
            write = partial(write_reranked, encoding=encoding, rows=rows, product=product)
        ranks = count_in_blocks(write, rows, len(query), block, matches, backend)
    return scores_from_ranks(ranks, matches, len(gallery), max_rank, average_precision)


def plan_ranking(rows: Rows, num_query: int, memory_gib: float | None) -> int:
    """Queries of a block under the budget."""
    num_gallery = rows.num_items - num_query
    extra = (
        1 if rows.device.type == "cpu" else 12
    )  # in torch, a sort of what is near; in the worst case of everything
    return plan_blocks(
        f"ranking {num_query:,} queries in a gallery of {num_gallery:,}",
        rows.device,
        num_query,
        bytes_per_row=4 * (num_gallery * extra + COLUMNS + rows.dims),
        bytes_fixed=8 * rows.num_items + 16 * num_gallery,
        memory_gib=memory_gib,
    )


def write_plain(
    out: torch.Tensor, first: int, last: int, *, rows: Rows, num_query: int, product: Product
) -> None:
    """What ranks the gallery for queries first..last-1, into `out` [b, G]: distances less the query's own terms."""
    left = rows.left_factor(first, last)
    for low, high in rows.spans(num_query, rows.num_items, COLUMNS):
        out[:, low - num_query : high - num_query] = distance_tile(rows, left, low, high, product)


def count_in_blocks(
    write: Callable, rows: Rows, num_query: int, block: int, matches: Matches, backend: str
) -> np.ndarray:
    """Ranks of all matches [M]; `write(out, first=, last=)` fills one block of queries' distances [b, G] at a time."""
    on_cpu = rows.device.type == "cpu"
    count = choose_backend(backend)
    buffer = rows.scales.new_empty(block, rows.num_items - num_query)
    ranks = []
    spans = list(rows.spans(0, num_query, block))
    for first, last in tqdm(spans, desc="ranking", delay=SECONDS_OF_SILENCE, disable=None, leave=False):
        out = buffer[: last - first]
        write(out, first=first, last=last)
        part = matches.block(first, last)
        ranks.append(count(out.numpy(), part) if on_cpu else count_ranks_torch(out, part))
    return np.concatenate(ranks)
