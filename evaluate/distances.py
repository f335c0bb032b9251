"""Distances between all queries and the gallery, one block of queries at a time.

Letters: Q queries, G gallery entries, D dimensions, b queries of a block.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from tqdm import tqdm

from .fast.tiles import (
    COLUMNS,
    METRICS,
    TQDM_DELAY,
    choose_product,
    create_feature_matrix,
    distance_tile,
    full_precision,
    plan_blocks,
)
from .inputs import check_budget, check_choice, check_feature_pair


class DistanceBlock(NamedTuple):
    """Distances [b, G] float32 of the queries first..last-1."""

    first: int
    last: int
    distances: torch.Tensor


def distance_blocks(
    query, gallery, *, metric: str = "cosine", memory_gib: float | None = None, copies: int = 3
) -> Iterator[DistanceBlock]:
    """Yields the distances of one block of queries after another, on the features' device.

    Every block overwrites the previous one.

    Args:
        query, gallery: features [Q, D], [G, D].
        metric: "cosine" (1 - cosine) or "euclidean" (squared).
        memory_gib: budget beyond the features; None: no limit.
        copies: for the plan, the number of arrays of a block's size that the caller and this
            function need together.

    Raises:
        ValueError: one sentence about the first invalid argument.
    """
    check_choice(metric, "metric", METRICS)
    check_budget(memory_gib)
    query, gallery = check_feature_pair(query, gallery)
    num_query, num_gallery = len(query), len(gallery)
    with torch.no_grad():
        features = create_feature_matrix((query, gallery), metric)
    block = plan_blocks(
        f"distances of {num_query:,} queries to a gallery of {num_gallery:,}",
        features,
        num_query,
        bytes_per_row=4 * copies * num_gallery,
        bytes_fixed=0,
        memory_gib=memory_gib,
    )
    product = choose_product(features.device, 2.0 * num_query * num_gallery * features.dims)
    buffer = features.scales.new_empty(block, num_gallery)
    spans = list(features.spans(0, num_query, block))
    for first, last in tqdm(spans, desc="distances", delay=TQDM_DELAY, disable=None, leave=False):
        out = buffer[: last - first]
        # This must not enclose the yield, because it would change the modes of the caller.
        with torch.no_grad(), full_precision():
            left = features.left_factor(torch.arange(first, last, device=features.device))
            for low, high in features.spans(num_query, features.num_items, COLUMNS):
                tile = distance_tile(features, left, low, high, product, constant=features.constant)
                out[:, low - num_query : high - num_query] = tile
            out.add_(features.squares[first:last, None]).clamp_(min=0)
            if metric == "cosine":
                # |x - y|^2 = 2 (1 - cos) for unit vectors; division by two is exact.
                out.mul_(0.5)
        yield DistanceBlock(first, last, out)


def distance_matrix(query, gallery, *, metric: str = "cosine"):
    """All distances [Q, G] float32, "cosine" (1 - cosine) or "euclidean" (squared).

    Returns a numpy array for numpy input, else a tensor.
    """
    blocks = distance_blocks(query, gallery, metric=metric)
    distances = torch.cat([block.distances.clone() for block in blocks])
    return distances if isinstance(query, torch.Tensor) else distances.numpy()
