"""Tiles of a distance matrix that is never held: rows of features, one tile of distances, the memory plan.

Letters: N items (queries first, then gallery), D dimensions, b rows and n columns of a tile, P pairs.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from .matmul_backends import Product

logger = logging.getLogger("ember.evaluate")

GIB = 2**30
COLUMNS = 4096  # a tile of 512 x 4096 float32 is 8 MiB: it stays in the cache, and malloc reuses its memory
ROWS_CPU, ROWS_GPU = 512, 2048
METRICS = ("cosine", "euclidean")


class Rows(NamedTuple):
    """Features of all items, left where they are.

    The squared distance of items i, j: constant + squares[i] + squares[j] - 2 scales[i] scales[j] <x_i, x_j>.
    """

    parts: tuple[torch.Tensor, ...]  # float32 [N_p, D] each
    scales: torch.Tensor  # float32 [N]: 1 / norm for cosine, 1 for euclidean
    squares: torch.Tensor  # float32 [N]: 0 for cosine, the squared norm for euclidean
    constant: float  # 2 for cosine, 0 for euclidean

    @property
    def num_items(self) -> int:
        return len(self.scales)

    @property
    def device(self) -> torch.device:
        return self.scales.device

    @property
    def dims(self) -> int:
        return self.parts[0].shape[1]

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Both parts, scales and squares, as the kernels take them."""
        return tuple(
            tensor.contiguous().numpy() for tensor in (*self.parts, self.scales, self.squares)
        )

    def block(self, first: int, last: int) -> torch.Tensor:
        """Features of items first..last-1 [last - first, D], all in one part (see `spans`): a view."""
        for part in self.parts:
            if first < len(part):
                return part[first:last]
            first, last = first - len(part), last - len(part)
        raise IndexError(f"item {first} behind the last")

    def spans(self, first: int, last: int, size: int) -> Iterator[tuple[int, int]]:
        """Cuts items first..last-1 into pieces of at most `size` that stay inside one part each."""
        start = 0
        for part in self.parts:
            low, high = max(first, start), min(last, start + len(part))
            for left in range(low, high, size):
                yield left, min(left + size, high)
            start += len(part)

    def gather(self, items: torch.Tensor) -> torch.Tensor:
        """Features of single items, int64 [P] -> [P, D]."""
        gathered = self.parts[0].new_empty(len(items), self.dims)
        start = 0
        for part in self.parts:
            inside = (items >= start) & (items < start + len(part))
            gathered[inside] = part[items[inside] - start]
            start += len(part)
        return gathered

    def pair_distances(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Squared distances of single pairs of items, int64 [P] each -> float32 [P]."""
        inner = (self.gather(left) * self.gather(right)).sum(dim=1)
        inner *= -2 * self.scales[left] * self.scales[right]
        return (inner + self.squares[left] + (self.squares[right] + self.constant)).clamp_(min=0)

    def left_factor(self, items: torch.Tensor) -> torch.Tensor:
        """Rows of items, int64 [b], times -2 and their scale [b, D]: the left side of the product behind a tile."""
        return self.gather(items).mul_(-2 * self.scales[items, None])

    @property
    def rounding(self) -> float:
        """More than all rounding in float32 adds to a distance."""
        longest = self.constant / 2 + float(self.squares.max())  # squared norm
        return longest * 2.0**-23 * (128 + self.dims / 16)


def create_rows(parts: tuple[torch.Tensor, ...], metric: str) -> Rows:
    """Rows under "cosine" (squared Euclidean of L2-normalized features) or "euclidean" (squared, as given).

    A row of zeros has no direction: under "cosine" it is as far from everything as orthogonal vectors are.
    """
    norms = torch.cat([torch.linalg.vector_norm(part, dim=1) for part in parts])
    if not bool(torch.isfinite(norms.square()).all()):
        raise ValueError(
            "Features are so large that their squared norms overflow float32: scale them down."
        )
    if metric == "cosine":
        return Rows(parts, 1 / norms.clamp_(min=1e-12), torch.zeros_like(norms), 2.0)
    return Rows(parts, torch.ones_like(norms), norms.square_(), 0.0)


def distance_tile(
    rows: Rows,
    left: torch.Tensor,
    first: int,
    last: int,
    product: Product,
    *,
    constant: float = 0.0,
) -> torch.Tensor:
    """constant + squares[j] - 2 scales[i] scales[j] <x_i, x_j>, `left` a `left_factor`, j = first..last-1.

    Returns float32 [b, last - first]: squared distances less what belongs to the row alone, which is all that
    ranking a row needs; without the constant, near-equal similarities keep their last bits.
    """
    tile = product(left, rows.block(first, last))
    return torch.addcmul(
        rows.squares[first:last] + constant, tile, rows.scales[first:last], out=tile
    )


def plan_blocks(
    what: str,
    rows: Rows,
    num_rows: int,
    *,
    bytes_per_row: int,
    bytes_fixed: int,
    memory_gib: float | None,
) -> int:
    """The number of rows a block may have under the budget (None: no limit); logs the plan.

    Args:
        num_rows: how many rows there are to cut into blocks.
        bytes_per_row: what one more row in a block allocates besides its features and its part of a tile.
        bytes_fixed: what is allocated whatever the block, besides what the libraries take to reorder features.
        memory_gib: for all that is allocated beyond the features.
    Raises: ValueError with the smallest budget that works, when this one does not.
    """
    columns = min(COLUMNS, rows.num_items)
    bytes_per_row += 4 * (rows.dims + 2 * columns)
    bytes_fixed += 4 * columns * rows.dims + 12 * rows.num_items
    block = max(1, min(num_rows, ROWS_CPU if rows.device.type == "cpu" else ROWS_GPU))
    if memory_gib is not None:
        room = memory_gib * GIB - bytes_fixed
        smallest = min(
            block, 16
        )  # with fewer rows a product spends its time on reading the other side
        if room < smallest * bytes_per_row:
            least = int((bytes_fixed + smallest * bytes_per_row) / GIB * 1000 + 1) / 1000
            raise ValueError(
                f"{what} needs at least {least:.3f} GiB beyond the features, and memory_gib allows "
                f"{memory_gib:g}: set it to {least:.3f} or more."
            )
        block = min(block, int(room // bytes_per_row))
    estimate = (bytes_fixed + block * bytes_per_row) / GIB
    logger.info("%s: blocks of %d rows, about %.2f GiB beyond the features", what, block, estimate)
    return block
