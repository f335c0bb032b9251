"""Distance matrices in tiles: the features of all items, one tile of distances, the memory plan.

No matrix of all distances is ever stored.
Letters: N items (queries first, then gallery), D dimensions, b rows and n columns of a tile,
P pairs.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .matmul_backends import WORTH_MEASURING, Product, fastest_product

logger = logging.getLogger("ember.evaluate")

GIB = 2**30
# Seconds. A progress bar appears only for work that takes longer.
TQDM_DELAY = 3
# A tile of 512 x 4096 float32 is 8 MiB: it stays in the cache, and malloc reuses its memory.
COLUMNS = 4096
ROWS_CPU, ROWS_GPU = 512, 2048
METRICS = ("cosine", "euclidean")


@dataclass(frozen=True, eq=False)
class FeatureMatrix:
    """Features of all items, and terms of their squared distances; the features are not copied.

    The squared distance of items i and j is
        constant + squares[i] + squares[j] - 2 scales[i] scales[j] <x_i, x_j>

    Attributes:
        parts: float32 [N_p, D] each; queries and gallery.
        scales: float32 [N], 1 / norm for cosine, 1 for Euclidean.
        squares: float32 [N], 0 for cosine, the squared norm for Euclidean.
        constant: 2 for cosine, 0 for Euclidean.
    """

    parts: tuple[torch.Tensor, ...]
    scales: torch.Tensor
    squares: torch.Tensor
    constant: float

    @property
    def num_items(self) -> int:
        return len(self.scales)

    @property
    def device(self) -> torch.device:
        return self.scales.device

    @property
    def dims(self) -> int:
        return self.parts[0].shape[1]

    @property
    def largest_square(self) -> float:
        """The largest squared norm of the vectors between which distances are measured."""
        return self.constant / 2 + float(self.squares.max())

    @property
    def rounding(self) -> float:
        """An upper bound on the float32 rounding error of a squared distance."""
        return self.largest_square * 2.0**-23 * (128 + self.dims / 16)

    @property
    def resolution(self) -> float:
        """The unit of distances in re-ranking (see `round_ties`): 2^-19 for cosine.

        A power of two that is well above usual rounding errors.
        """
        return 2.0 ** (np.ceil(np.log2(max(self.largest_square, 1e-30))) - 19)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Both parts, scales and squares, in the form that the kernels expect."""
        tensors = (*self.parts, self.scales, self.squares)
        return tuple(tensor.contiguous().numpy() for tensor in tensors)

    def block(self, first: int, last: int) -> torch.Tensor:
        """A view of the features of items first..last-1, all in one part (see `spans`)."""
        for part in self.parts:
            if first < len(part):
                return part[first:last]
            first, last = first - len(part), last - len(part)
        raise IndexError(f"item {first} is beyond the last one")

    def spans(self, first: int, last: int, size: int) -> Iterator[tuple[int, int]]:
        """Ranges of at most `size` items that cover first..last-1, each within one part."""
        start = 0
        for part in self.parts:
            low, high = max(first, start), min(last, start + len(part))
            for begin in range(low, high, size):
                yield begin, min(begin + size, high)
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
        distances = inner + self.squares[left] + (self.squares[right] + self.constant)
        return round_ties(distances.clamp_(min=0), self.resolution)

    def left_factor(self, items: torch.Tensor) -> torch.Tensor:
        """Features of items, int64 [b], times -2 and their scale [b, D]: the left matrix factor."""
        return self.gather(items).mul_(-2 * self.scales[items, None])


def create_feature_matrix(parts: tuple[torch.Tensor, ...], metric: str) -> FeatureMatrix:
    """Features under "cosine" (squared Euclidean after L2 normalization) or "euclidean" (squared).

    A feature of zeros has no direction: under "cosine", it is as far from all others as
    orthogonal features are.

    Raises:
        ValueError: distances would overflow float32.
    """
    norms = torch.cat([torch.linalg.vector_norm(part, dim=1) for part in parts])
    # The largest distance is four times the largest squared norm.
    if not bool(torch.isfinite(4 * norms.square()).all()):
        raise ValueError(
            "Features are so large that their squared norms overflow float32: scale them down."
        )
    if metric == "cosine":
        return FeatureMatrix(parts, 1 / norms.clamp_(min=1e-12), torch.zeros_like(norms), 2.0)
    return FeatureMatrix(parts, torch.ones_like(norms), norms.square_(), 0.0)


def round_ties(distances: torch.Tensor, resolution: float) -> torch.Tensor:
    """Rounds to multiples of `resolution` in place; see `reference.round_ties`.

    Adding and subtracting a large number drops the last bits (to nearest, half to even).
    Distances must be below 2^22 resolutions, which `FeatureMatrix.resolution` guarantees.
    """
    magic = 1.5 * 2.0**23 * resolution
    return distances.add_(magic).sub_(magic)


def distance_tile(
    features: FeatureMatrix,
    left: torch.Tensor,
    first: int,
    last: int,
    product: Product,
    *,
    constant: float = 0.0,
) -> torch.Tensor:
    """constant + squares[j] - 2 scales[i] scales[j] <x_i, x_j> for j = first..last-1.

    This is the squared distance minus squares[i], which does not change the ranking of row i.
    Without the constant, close similarities keep their last bits.

    Args:
        left: [b, D], the `left_factor` of the rows i.

    Returns:
        float32 [b, last - first].
    """
    tile = product(left, features.block(first, last))
    return torch.addcmul(
        features.squares[first:last] + constant, tile, features.scales[first:last], out=tile
    )


def choose_product(device: torch.device, work: float) -> Product:
    """The matrix product for about `work` floating point operations on a device."""
    if device.type != "cpu" or work < WORTH_MEASURING:
        return torch.nn.functional.linear
    return fastest_product()


@contextmanager
def full_precision() -> Iterator[None]:
    """Products in true float32: TF32 and bfloat16 would change the order of near neighbors."""
    # This object replaces its module, which type checkers do not see.
    mkldnn: Any = torch.backends.mkldnn
    libraries = (torch.backends.cuda.matmul, mkldnn.matmul)
    previous = [library.fp32_precision for library in libraries]
    for library in libraries:
        library.fp32_precision = "ieee"
    try:
        yield
    finally:
        for library, precision in zip(libraries, previous, strict=True):
            library.fp32_precision = precision


def plan_blocks(
    what: str,
    features: FeatureMatrix,
    num_rows: int,
    *,
    bytes_per_row: int,
    bytes_fixed: int,
    memory_gib: float | None,
) -> int:
    """The number of rows in a block under the budget (None: no limit); logs the plan.

    Args:
        what: the work, for the log and the error message.
        num_rows: number of rows to divide into blocks.
        bytes_per_row: what one more row allocates, besides its features and its part of a tile.
        bytes_fixed: what is allocated for any block size, besides the libraries' copies.
        memory_gib: budget for everything that is allocated beyond the features.

    Raises:
        ValueError: the budget is too small; the message contains the smallest one that works.
    """
    columns = min(COLUMNS, features.num_items)
    bytes_per_row += 4 * (features.dims + 2 * columns)
    bytes_fixed += 4 * columns * features.dims + 12 * features.num_items
    most = ROWS_CPU if features.device.type == "cpu" else ROWS_GPU
    block = max(1, min(num_rows, most))
    if memory_gib is not None:
        available = memory_gib * GIB - bytes_fixed
        # With fewer rows, a product spends its time on reading the right factor.
        smallest = min(block, 16)
        if available < smallest * bytes_per_row:
            least = int((bytes_fixed + smallest * bytes_per_row) / GIB * 1000 + 1) / 1000
            raise ValueError(
                f"{what} needs at least {least:.3f} GiB beyond the features, and memory_gib "
                f"allows {memory_gib:g}: set it to {least:.3f} or more."
            )
        block = min(block, int(available // bytes_per_row))
    estimate = (bytes_fixed + block * bytes_per_row) / GIB
    logger.info("%s: blocks of %d rows, about %.2f GiB beyond the features", what, block, estimate)
    return block
