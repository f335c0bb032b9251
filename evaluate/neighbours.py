"""The nearest items of every item among all of them, and how far the farthest is, in tiles.

Letters: N items, k neighbours of each (the item itself is its own first neighbour), b rows of a block.
"""

from typing import NamedTuple

import torch
from tqdm import tqdm

from .device_ranking import sort_within_rows
from .products import Product
from .ranking import num_threads
from .tiles import COLUMNS, Rows, distance_tile

try:
    from .eval_cylib import rerank_cy
except ImportError:
    rerank_cy = None

SECONDS_OF_SILENCE = 3  # progress bars appear only for work that takes longer


class Neighbours(NamedTuple):
    """Nearest items by (distance, position), and the largest distance of each row."""

    indices: torch.Tensor  # int32 [N, k]
    distances: torch.Tensor  # float32 [N, k]  squared Euclidean
    farthest: torch.Tensor  # float32 [N]


def nearest_neighbours(rows: Rows, k: int, product: Product, block: int, *, compiled: bool) -> Neighbours:
    """The k nearest of every item: by the compiled kernel on a CPU, else in torch on the features' device."""
    if compiled:
        return _nearest_compiled(rows, k, product, block)
    return _nearest_torch(rows, k, product, block)


def _nearest_compiled(rows: Rows, k: int, product: Product, block: int) -> Neighbours:
    """Running lists; a tile of the symmetric product is computed once and serves its rows and its columns."""
    num = rows.num_items
    found = Neighbours(
        torch.zeros(num, k, dtype=torch.int32), torch.full((num, k), torch.inf), torch.zeros(num)
    )
    arrays = [tensor.numpy() for tensor in found]
    with tqdm(
        total=num * num // 2,
        desc="neighbours",
        unit="pair",
        unit_scale=True,
        delay=SECONDS_OF_SILENCE,
        disable=None,
        leave=False,
    ) as progress:
        for first, last in rows.spans(0, num, block):
            left = rows.left_factor(first, last)
            for low, high in rows.spans(first, num, COLUMNS):
                tile = distance_tile(rows, left, low, high, product, constant=rows.constant)
                if not rows.constant:
                    tile += rows.squares[first:last, None]
                rerank_cy.update_nearest(tile.numpy(), first, low, *arrays, num_threads())
                progress.update(min((last - first) * (high - low), num * num // 2 - progress.n))
    return found


def _nearest_torch(rows: Rows, k: int, product: Product, block: int) -> Neighbours:
    """Whole rows of distances, one block of rows at a time; ties at the k-th place go to the lower position."""
    num = rows.num_items
    found = Neighbours(
        torch.zeros(num, k, dtype=torch.int32, device=rows.device),
        torch.zeros(num, k, device=rows.device),
        torch.zeros(num, device=rows.device),
    )
    spans = list(rows.spans(0, num, block))
    for first, last in tqdm(spans, desc="neighbours", delay=SECONDS_OF_SILENCE, disable=None, leave=False):
        left = rows.left_factor(first, last)
        tile = torch.cat(
            [
                distance_tile(rows, left, low, high, product, constant=rows.constant)
                for low, high in rows.spans(0, num, COLUMNS)
            ],
            dim=1,
        )  # [b, N]
        tile = (tile + rows.squares[first:last, None]).clamp_(min=0)
        tile[torch.arange(last - first), torch.arange(first, last)] = 0
        limit = (
            tile.kthvalue(k, dim=1).values if k == num else torch.topk(tile, k, largest=False).values[:, -1]
        )
        of_row, near = torch.nonzero(tile <= limit[:, None], as_tuple=True)
        values = tile[of_row, near]
        order = sort_within_rows(of_row, values)
        row_starts = torch.searchsorted(of_row, torch.arange(last - first, device=rows.device))
        chosen = order[row_starts[:, None] + torch.arange(k, device=rows.device)]  # [b, k]
        found.indices[first:last] = near[chosen].int()
        found.distances[first:last] = values[chosen]
        found.farthest[first:last] = tile.amax(dim=1)
    return found
