"""Distances of all queries to the whole gallery, one block of queries at a time.

Letters: Q queries, G gallery entries, D dimensions, b queries of a block.
"""

from collections.abc import Iterator

import torch
from tqdm import tqdm

from .checks import check_budget, check_choice, check_feature_pair
from .fast.matmul_backends import choose_product, full_precision
from .fast.tiles import COLUMNS, METRICS, create_rows, distance_tile, plan_blocks

SECONDS_OF_SILENCE = 3  # progress bars appear only for work that takes longer


def distance_blocks(
    query, gallery, *, metric: str = "cosine", memory_gib: float | None = None, copies: int = 3
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yields (first, last, distances [b, G] float32 of queries first..last-1) on the features' device.

    The distances are 1 - cosine, or squared Euclidean; each block overwrites the one before. `copies` is the
    number of arrays of a block's size that the caller and this function hold together, for the plan.
    Raises: ValueError with one sentence on the first thing that is wrong.
    """
    check_choice(metric, "metric", METRICS)
    check_budget(memory_gib)
    query, gallery = check_feature_pair(query, gallery)
    num_query, num_gallery = len(query), len(gallery)
    with torch.no_grad():
        rows = create_rows((query, gallery), metric)
    block = plan_blocks(
        f"distances of {num_query:,} queries to a gallery of {num_gallery:,}",
        rows,
        num_query,
        bytes_per_row=4 * copies * num_gallery,
        bytes_fixed=0,
        memory_gib=memory_gib,
    )
    product = choose_product(rows.device, 2.0 * num_query * num_gallery * rows.dims)
    buffer = rows.scales.new_empty(block, num_gallery)
    spans = list(rows.spans(0, num_query, block))
    for first, last in tqdm(
        spans, desc="distances", delay=SECONDS_OF_SILENCE, disable=None, leave=False
    ):
        out = buffer[: last - first]
        with torch.no_grad(), full_precision():  # not around the yield: the caller's own modes stay
            left = rows.left_factor(torch.arange(first, last, device=rows.device))
            for low, high in rows.spans(num_query, rows.num_items, COLUMNS):
                tile = distance_tile(rows, left, low, high, product, constant=rows.constant)
                out[:, low - num_query : high - num_query] = tile
            out.add_(rows.squares[first:last, None]).clamp_(min=0)
            if metric == "cosine":
                out.mul_(0.5)  # |x - y|^2 = 2 (1 - cos) for unit vectors; halving is exact
        yield first, last, out


def distance_matrix(query, gallery, *, metric: str = "cosine"):
    """All distances [Q, G] float32: 1 - cosine, or squared Euclidean; numpy for numpy, else torch."""
    blocks = [block.clone() for _, _, block in distance_blocks(query, gallery, metric=metric)]
    distances = torch.cat(blocks)
    return distances if isinstance(query, torch.Tensor) else distances.numpy()
