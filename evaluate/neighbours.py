"""The nearest items of every item among all of them, and how far the farthest is, in tiles.

Letters: N items, k neighbours of each (the item itself is its own first neighbour), b rows of a block.
"""

from typing import NamedTuple

import torch
from tqdm import tqdm

from .device_ranking import sort_within_rows
from .products import Product
from .ranking import num_threads
from .sharding import ALONE, Shard, merge_nearest
from .tiles import COLUMNS, Rows, distance_tile

try:
    from .eval_cylib import rerank_cy
except ImportError:
    rerank_cy = None

SECONDS_OF_SILENCE = 3  # progress bars appear only for work that takes longer


class Neighbours(NamedTuple):
    """Nearest items by (distance, position), and the largest distance of each row."""

    indices: torch.Tensor  # int32 [N, k]
    distances: torch.Tensor  # float32 [N, k]  squared
    farthest: torch.Tensor  # float32 [N]


def has_kernel(backend: str = "auto") -> bool:
    """Whether the compiled kernels were built and are wanted."""
    return rerank_cy is not None and backend != "python"


def use_compiled(rows: Rows, backend: str = "auto") -> bool:
    """Whether they serve for neighbours, too: where the features are in the CPU's memory."""
    return has_kernel(backend) and rows.device.type == "cpu"


def nearest_neighbours(
    rows: Rows, k: int, product: Product, block: int, *, compiled: bool, shard: Shard = ALONE
) -> Neighbours:
    """The k nearest of every item: by the compiled kernel on a CPU, else in torch on the features' device.

    Processes that share the work each see part of the pairs, and all get the merged lists.
    """
    spans = shard.mine(rows.spans(0, rows.num_items, block))
    found = Neighbours(
        torch.zeros(rows.num_items, k, dtype=torch.int32, device=rows.device),
        torch.full((rows.num_items, k), torch.inf, device=rows.device),
        torch.zeros(rows.num_items, device=rows.device),
    )
    take = _take_compiled if compiled else _take_torch
    for first, last in tqdm(spans, desc="neighbours", delay=SECONDS_OF_SILENCE, disable=None, leave=False):
        take(found, rows, first, last, product)
    return Neighbours(*merge_nearest(*found, shard))


def _take_compiled(found: Neighbours, rows: Rows, first: int, last: int, product: Product) -> None:
    """Rows first..last-1 against themselves and all behind: each tile serves its rows and its columns."""
    left = rows.left_factor(first, last)
    arrays = [tensor.numpy() for tensor in found]
    for low, high in rows.spans(first, rows.num_items, COLUMNS):
        tile = distance_tile(rows, left, low, high, product, constant=rows.constant)
        if not rows.constant:
            tile += rows.squares[first:last, None]
        rerank_cy.update_nearest(tile.numpy(), first, low, *arrays, num_threads())


def _take_torch(found: Neighbours, rows: Rows, first: int, last: int, product: Product) -> None:
    """Rows first..last-1 against everything; equal distances at the k-th place go to the lower position."""
    k, left = found.indices.shape[1], rows.left_factor(first, last)
    tile = torch.cat(
        [
            distance_tile(rows, left, low, high, product, constant=rows.constant)
            for low, high in rows.spans(0, rows.num_items, COLUMNS)
        ],
        dim=1,
    )  # [b, N]
    tile.add_(rows.squares[first:last, None]).clamp_(min=0)
    tile[torch.arange(last - first), torch.arange(first, last)] = 0
    limit = torch.topk(tile, k, largest=False).values[:, -1]
    of_row, near = torch.nonzero(tile <= limit[:, None], as_tuple=True)  # at least k a row, rows rising
    values = tile[of_row, near]
    order = sort_within_rows(of_row, values)
    row_starts = torch.searchsorted(of_row, torch.arange(last - first, device=rows.device))
    chosen = order[row_starts[:, None] + torch.arange(k, device=rows.device)]  # [b, k]
    found.indices[first:last] = near[chosen].int()
    found.distances[first:last] = values[chosen]
    found.farthest[first:last] = tile.amax(dim=1)
