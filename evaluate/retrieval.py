"""Compute scores from features in blocks of queries, without a matrix of all distances.

Each block computes whole rows, so the distance of a match and the distances that it is compared
with come from the same tiles: equal features tie for every shape of the tiles.
Letters: Q queries, G gallery entries, D dimensions, b queries of a block, V valid queries,
M matches of all valid queries.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from .fast.device_ranking import count_ranks_torch
from .fast.k_reciprocal import encode, plan_reranking, write_reranked
from .fast.matmul_backends import Product
from .fast.reranking_bounds import fill_bounded_ranks
from .fast.sharding import SINGLE_PROCESS, Shard, current_shard, sum_over_shards
from .fast.tiles import (
    COLUMNS,
    METRICS,
    TQDM_DELAY,
    FeatureMatrix,
    choose_product,
    create_feature_matrix,
    distance_tile,
    full_precision,
    plan_blocks,
)
from .inputs import (
    Ids,
    Rerank,
    check_budget,
    check_choice,
    check_feature_pair,
    check_ids,
    check_max_rank,
    check_not_empty,
    check_rerank,
)
from .ranking import (
    AVERAGE_PRECISIONS,
    Matches,
    RankScores,
    choose_backend,
    find_matches,
    scores_from_ranks,
)
from .reference import JUNK_PID

WriteRows = Callable[[torch.Tensor, torch.Tensor], None]


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
        query, gallery: features [Q, D], [G, D], torch on one device or numpy; used as float32.
        metric: "cosine", or "euclidean" for features as they are.
        rerank: None, or `Rerank(k1, k2, lambda_value)` for k-reciprocal re-ranking.
        memory_gib: budget for what is allocated beyond the float32 features without junk; None
            takes the fastest plan. The plan is logged.
        max_rank, average_precision, backend: as in `rank_metrics`.
        distributed: share the work among the processes of torch.distributed. All of them pass the
            same features and get the same scores.

    Raises:
        ValueError: one sentence about the first invalid argument.
    """
    check_max_rank(max_rank)
    check_choice(metric, "metric", METRICS)
    check_choice(average_precision, "average_precision", AVERAGE_PRECISIONS)
    check_budget(memory_gib)
    choose_backend(backend)
    if rerank is not None:
        rerank = check_rerank(rerank)
    query, gallery = check_feature_pair(query, gallery)
    ids = check_ids(
        query_pids, gallery_pids, query_camids, gallery_camids, len(query), len(gallery)
    )
    gallery, ids = drop_junk(gallery, ids)
    matches = find_matches(ids)
    shard = current_shard() if distributed else SINGLE_PROCESS
    with torch.no_grad(), full_precision():
        features = create_feature_matrix((query, gallery), metric)
        ranks = compute_ranks(features, matches, len(query), rerank, memory_gib, backend, shard)
    if distributed:
        ranks = sum_over_shards(ranks, shard)
    return scores_from_ranks(ranks, matches, max_rank, average_precision)


def compute_ranks(
    features: FeatureMatrix,
    matches: Matches,
    num_query: int,
    rerank: Rerank | None,
    memory_gib: float | None,
    backend: str,
    shard: Shard,
) -> np.ndarray:
    """Ranks of all matches, int64 [M]; 0 for the queries of other processes."""
    num_gallery = features.num_items - num_query
    ranks = np.zeros(len(matches.columns), np.int64)
    numbers = np.arange(shard.rank, len(matches.queries), shard.world_size)
    write_rows: WriteRows
    if rerank is None:
        block = plan_ranking(features, num_query, memory_gib)
        work = 2.0 * num_query * num_gallery * features.dims
        product = choose_product(features.device, work)
        write_rows = partial(
            write_distances, features=features, num_query=num_query, product=product
        )
    else:
        plan = plan_reranking(features, num_query, rerank, memory_gib, backend=backend, shard=shard)
        block = plan.block
        encoding = encode(features, num_query, rerank, plan, shard)
        write_rows = partial(write_reranked, encoding=encoding, plan=plan)
        if plan.compiled_neighbors:
            numbers = fill_bounded_ranks(ranks, numbers, encoding=encoding, matches=matches)
    buffer = features.scales.new_empty(min(block, num_query), num_gallery)
    fill_ranks(ranks, numbers, write_rows, buffer, matches, backend)
    return ranks


def drop_junk(gallery: torch.Tensor, ids: Ids) -> tuple[torch.Tensor, Ids]:
    """The gallery without junk, which must not take part in re-ranking either."""
    kept = np.flatnonzero(ids.gallery_pids != JUNK_PID)
    if len(kept) == len(gallery):
        return gallery, ids
    check_not_empty(len(ids.query_pids), len(kept))
    ids = ids._replace(gallery_pids=ids.gallery_pids[kept], gallery_camids=ids.gallery_camids[kept])
    return gallery[torch.from_numpy(kept).to(gallery.device)], ids


def plan_ranking(features: FeatureMatrix, num_query: int, memory_gib: float | None) -> int:
    """The number of queries in a block under the budget."""
    num_gallery = features.num_items - num_query
    # On other devices, ranks are counted in torch with a sort of all near entries, which are the
    # whole gallery in the worst case.
    num_arrays = 1 if features.device.type == "cpu" else 12
    return plan_blocks(
        f"ranking {num_query:,} queries in a gallery of {num_gallery:,}",
        features,
        num_query,
        bytes_per_row=4 * num_gallery * num_arrays,
        bytes_fixed=16 * num_gallery,
        memory_gib=memory_gib,
    )


def write_distances(
    out: torch.Tensor,
    items: torch.Tensor,
    *,
    features: FeatureMatrix,
    num_query: int,
    product: Product,
) -> None:
    """Write the distances of queries `items`, int64 [b], into `out` [b, G].

    A constant per row is left out, which does not change the ranking.
    """
    left = features.left_factor(items)
    for low, high in features.spans(num_query, features.num_items, COLUMNS):
        tile = distance_tile(features, left, low, high, product)
        out[:, low - num_query : high - num_query] = tile


def fill_ranks(
    ranks: np.ndarray,
    numbers: np.ndarray,
    write_rows: WriteRows,
    buffer: torch.Tensor,
    matches: Matches,
    backend: str,
) -> None:
    """Fill the ranks [M] of the valid queries `numbers`, one block of rows after another.

    Args:
        write_rows: `write_rows(out, items)` writes the distances [b, G] of some queries.
        buffer: [b, G], overwritten.
    """
    on_cpu = buffer.device.type == "cpu"
    count_ranks = choose_backend(backend)
    block = len(buffer)
    pieces = [numbers[first : first + block] for first in range(0, len(numbers), block)]
    for piece in tqdm(pieces, desc="ranking", delay=TQDM_DELAY, disable=None, leave=False):
        out, (part, places) = buffer[: len(piece)], matches.select(piece)
        write_rows(out, torch.from_numpy(matches.queries[piece]).to(buffer.device))
        if on_cpu:
            ranks[places] = count_ranks(out.numpy(), part)
        else:
            ranks[places] = count_ranks_torch(out, part)
