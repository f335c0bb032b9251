"""From features to scores in tiles: no distance matrix of all queries and the whole gallery is ever held.

Every block of queries sees its whole row of distances at once, so the distance of a match and the distances
that are counted against it come from the same tiles: equal features tie, whatever the shapes of the tiles.
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
from .fast.device_ranking import count_ranks_torch
from .fast.matmul_backends import Product, choose_product, full_precision
from .fast.neighbors import has_kernel
from .fast.reranking_bounds import settle_reranked
from .fast.sharding import Shard, current_shard, sum_over_shards
from .fast.tiles import COLUMNS, METRICS, Rows, create_rows, distance_tile, plan_blocks
from .matches import Matches, find_matches
from .ranking import AVERAGE_PRECISIONS, RankScores, choose_backend, scores_from_ranks
from .reranking import Rerank, check_rerank, encode, plan_reranking, write_reranked

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
    distributed: bool = False,
) -> RankScores:
    """Scores of features, by the rules of `rank_metrics`.

    Args:
        query, gallery: features [Q, D], [G, D]; torch on one device, or numpy; used as float32.
        metric: "cosine", or "euclidean" for features as they are.
        rerank: None, or `Rerank(k1, k2, lambda_value)`: rank by k-reciprocal encoding instead.
        memory_gib: budget for what is allocated beyond float32 features without junk; None takes the fastest
            plan. The plan is logged first.
        max_rank, average_precision, backend: as `rank_metrics`.
        distributed: share the work among the processes of torch.distributed; all call with the same features,
            and all get the scores.
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

    shard = current_shard(distributed)
    with torch.no_grad(), full_precision():
        rows = create_rows((query, gallery), metric)
        settle = leave_all
        if rerank is None:
            product = choose_product(rows.device, 2.0 * len(query) * len(gallery) * rows.dims)
            block = plan_ranking(rows, len(query), memory_gib)
            write = partial(write_plain, rows=rows, num_query=len(query), product=product)
        else:
            product = choose_product(rows.device, float(rows.num_items) ** 2 * rows.dims)
            plan = plan_reranking(
                rows, len(query), rerank, memory_gib, backend=backend, shard=shard
            )
            encoding = encode(rows, len(query), rerank, product, plan, shard)
            block, compiled = plan.block, has_kernel(backend)
            write = partial(
                write_reranked, encoding=encoding, rows=rows, product=product, compiled=compiled
            )
            if plan.compiled:
                settle = partial(settle_reranked, encoding=encoding, rows=rows, matches=matches)
        ranks = count_in_blocks(write, rows, len(query), block, matches, backend, shard, settle)
    return scores_from_ranks(ranks, matches, len(gallery), max_rank, average_precision)


def plan_ranking(rows: Rows, num_query: int, memory_gib: float | None) -> int:
    """Queries of a block under the budget."""
    num_gallery = rows.num_items - num_query
    # ranks are counted in torch elsewhere, by a sort of what is near: in the worst case of everything
    extra = 1 if rows.device.type == "cpu" else 12
    return plan_blocks(
        f"ranking {num_query:,} queries in a gallery of {num_gallery:,}",
        rows,
        num_query,
        bytes_per_row=4 * num_gallery * extra,
        bytes_fixed=16 * num_gallery,
        memory_gib=memory_gib,
    )


def write_plain(
    out: torch.Tensor, items: torch.Tensor, *, rows: Rows, num_query: int, product: Product
) -> None:
    """What ranks the gallery for queries `items`, int64 [b], into `out` [b, G]: distances but for a constant."""
    left = rows.left_factor(items)
    for low, high in rows.spans(num_query, rows.num_items, COLUMNS):
        out[:, low - num_query : high - num_query] = distance_tile(rows, left, low, high, product)


def leave_all(numbers: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Settles no query."""
    return numbers


def count_in_blocks(
    write: Callable,
    rows: Rows,
    num_query: int,
    block: int,
    matches: Matches,
    backend: str,
    shard: Shard,
    settle: Callable = leave_all,
) -> np.ndarray:
    """Ranks of all matches [M].

    `write(out, items)` fills the distances [b, G] of some queries. `settle(numbers, ranks)` comes first: it fills the
    ranks of those valid queries that it can do without, and returns the numbers of the others.
    """
    on_cpu = rows.device.type == "cpu"
    count = choose_backend(backend)
    buffer = rows.scales.new_empty(min(block, num_query), rows.num_items - num_query)
    ranks = np.zeros(len(matches.columns), np.int64)
    left = settle(np.array(shard.mine(range(len(matches.queries))), np.int64), ranks)
    pieces = [left[first : first + block] for first in range(0, len(left), block)]
    for numbers in tqdm(
        pieces, desc="ranking", delay=SECONDS_OF_SILENCE, disable=None, leave=False
    ):
        out, (part, places) = buffer[: len(numbers)], matches.take(numbers)
        write(out, torch.from_numpy(matches.queries[numbers]).to(rows.device))
        ranks[places] = count(out.numpy(), part) if on_cpu else count_ranks_torch(out, part)
    return sum_over_shards(ranks, shard)
