"""The nearest items of every item, and the distance of the farthest one, in tiles.

Letters: N items, k neighbors of each (every item is its own first neighbor), b rows of a block,
K and F candidates of an item for its nearest and its farthest, P pairs.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from ..ranking import num_threads
from .device_ranking import sort_within_rows
from .int8_quantization import Codes, create_codes
from .matmul_backends import Product, product_integers
from .sharding import SINGLE_PROCESS, Shard, all_agree, merge_lists
from .tiles import COLUMNS, TQDM_DELAY, FeatureMatrix, distance_tile, round_ties

try:
    from ..eval_cylib import jaccard_cy, nearest_cy
except ImportError:
    nearest_cy = jaccard_cy = None  # type: ignore[assignment]

logger = logging.getLogger("ember.evaluate")

# With codes: number of candidates for each wanted neighbor, and for the farthest item.
NUM_NEAR, NUM_FAR = 4, 64
# Items per kernel call; Ctrl-C works between calls.
REFINED_AT_ONCE = 4096
# Pairs measured at once.
PAIRS = 4096
# Items compared with all others at once.
ROWS_AT_ONCE = 64

Tiles = Callable[[int, int], Iterator[tuple[int, torch.Tensor]]]


@dataclass(frozen=True, eq=False)
class Neighbors:
    """Nearest items by (distance, position), and the largest distance of each row.

    Distances are squared and rounded (see `tiles.round_ties`), so that the order of equally near
    items does not depend on how they were computed.

    Attributes:
        indices: int32 [N, k].
        distances: float32 [N, k].
        farthest: float32 [N].
    """

    indices: torch.Tensor
    distances: torch.Tensor
    farthest: torch.Tensor


@dataclass(frozen=True, eq=False)
class Lists:
    """Candidates of every item, sorted by (bound, position).

    A bound is a lower bound of the distance or, for the farthest items, of minus the distance.
    In lists from float32 distances it is the distance itself.

    Attributes:
        near: int32 [N, K].
        near_bounds: float32 [N, K]; infinity where there is no item.
        far: int32 [N, F].
        far_bounds: float32 [N, F].
    """

    near: torch.Tensor
    near_bounds: torch.Tensor
    far: torch.Tensor
    far_bounds: torch.Tensor

    @classmethod
    def empty(cls, features: FeatureMatrix, num_near: int, num_far: int) -> "Lists":
        """Lists of the given lengths without items."""
        near, far = (features.num_items, num_near), (features.num_items, num_far)
        like = features.scales
        return cls(
            like.new_zeros(near, dtype=torch.int32),
            like.new_full(near, torch.inf),
            like.new_zeros(far, dtype=torch.int32),
            like.new_full(far, torch.inf),
        )

    def merge(self, shard: Shard) -> "Lists":
        """The lists of all processes as one."""
        near, near_bounds = merge_lists(self.near, self.near_bounds, shard)
        far, far_bounds = merge_lists(self.far, self.far_bounds, shard)
        return Lists(near, near_bounds, far, far_bounds)

    def neighbors(self) -> Neighbors:
        """The result, if all bounds are distances."""
        return Neighbors(self.near, self.near_bounds, -self.far_bounds[:, 0])


def has_kernels(backend: str = "auto") -> bool:
    """Whether the compiled kernels were built and may be used."""
    return nearest_cy is not None and backend != "python"


def nearest_neighbors(
    features: FeatureMatrix,
    k: int,
    product: Product,
    block: int,
    *,
    compiled: bool,
    quantized: bool = False,
    shard: Shard = SINGLE_PROCESS,
) -> Neighbors:
    """The k nearest of every item.

    Args:
        compiled: use the kernels (features in CPU memory); otherwise torch on any device.
        quantized: search among 8-bit codes first (compiled only); the result is the same.
        shard: each process computes a part of the pairs, and all get the merged lists.
    """
    spans = shard.chunks_for_rank(features.spans(0, features.num_items, block))
    if quantized:
        candidates = candidates_from_codes(features, k, spans).merge(shard)
        found = refine(features, candidates, k, product, shard)
        if found is not None:
            return found
    lists = Lists.empty(features, k, 1)
    if compiled:
        no_error = torch.zeros(features.num_items)
        tiles = partial(float_tiles, features, product)
        fill_lists(lists, k, spans, tiles, errors=no_error, reaches=no_error, slack=0.0)
    else:
        for first, last in progress(spans, "neighbors"):
            fill_rows(lists, features, torch.arange(first, last, device=features.device), product)
    return lists.merge(shard).neighbors()


def progress(items, description: str):
    """A progress bar for work that takes longer than a few seconds."""
    return tqdm(items, desc=description, delay=TQDM_DELAY, disable=None, leave=False)


def fill_lists(
    lists: Lists,
    k: int,
    spans: list[tuple[int, int]],
    tiles: Tiles,
    *,
    errors: torch.Tensor,
    reaches: torch.Tensor,
    slack: float,
) -> None:
    """Compares the rows of each span with themselves and all later items.

    Each tile serves the lists of its rows and of its columns. Only items that may be among the k
    nearest, or be the farthest, are stored.

    Args:
        tiles: yields the tiles of a span.
        errors, reaches, slack: error bounds of the tiles, see `int8_quantization.Codes`.
    """
    bounds = errors.numpy(), reaches.numpy(), slack
    num = len(lists.near)
    near = lists.near.numpy(), lists.near_bounds.numpy(), np.full((num, k), np.inf, np.float32)
    far = lists.far.numpy(), lists.far_bounds.numpy(), np.full((num, 1), np.inf, np.float32)
    for first, last in progress(spans, "neighbors"):
        for low, tile in tiles(first, last):
            nearest_cy.update_lists(tile.numpy(), first, low, *bounds, near, far, num_threads())


def float_tiles(
    features: FeatureMatrix, product: Product, first: int, last: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yields (low, distances [b, n] of items first..last-1 to items low..) up to the last item."""
    left = features.left_factor(torch.arange(first, last))
    for low, high in features.spans(first, features.num_items, COLUMNS):
        tile = distance_tile(features, left, low, high, product, constant=features.constant)
        if not features.constant:
            tile += features.squares[first:last, None]
        yield low, round_ties(tile, features.resolution)


def code_tiles(
    codes: Codes, products: torch.Tensor, tile: torch.Tensor, first: int, last: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """The same as `float_tiles` for codes.

    Args:
        products, tile: buffers, int32 and float32 [b * COLUMNS].
    """
    scales, squares = codes.scales.numpy(), codes.squares.numpy()
    for low in range(first, len(scales), COLUMNS):
        high = min(low + COLUMNS, len(scales))
        shape = last - first, high - low
        integers, out = (buffer[: shape[0] * shape[1]].view(shape) for buffer in (products, tile))
        product_integers(codes.values[first:last], codes.values[low:high], out=integers)
        nearest_cy.decode_tile(
            integers.numpy(),
            scales[first:last],
            squares[first:last],
            scales[low:high],
            squares[low:high],
            out.numpy(),
            num_threads(),
        )
        yield low, out


def candidates_from_codes(features: FeatureMatrix, k: int, spans: list[tuple[int, int]]) -> Lists:
    """Candidates for the k nearest and the farthest items, from 8-bit codes."""
    codes = create_codes(features)
    size = max((last - first for first, last in spans), default=0) * COLUMNS
    tiles = partial(code_tiles, codes, torch.empty(size, dtype=torch.int32), torch.empty(size))
    lists = Lists.empty(features, NUM_NEAR * k, NUM_FAR)
    fill_lists(
        lists, k, spans, tiles, errors=codes.errors, reaches=codes.reaches, slack=codes.slack
    )
    return lists


def refine(
    features: FeatureMatrix, candidates: Lists, k: int, product: Product, shard: Shard
) -> Neighbors | None:
    """Measures candidates in float32 until no other item can come before them.

    Items whose lists are too short for that are compared with all others. Returns None if these
    are so many that the float32 search over all pairs is faster.
    """
    num = features.num_items
    found = Lists.empty(features, k, 1)
    farthest, certain = torch.zeros(num), torch.zeros(num, dtype=torch.int8)
    for first in progress(range(0, num, REFINED_AT_ONCE), "distances"):
        nearest_cy.refine(
            features.arrays(),
            features.constant,
            features.resolution,
            first,
            min(first + REFINED_AT_ONCE, num),
            candidates.near.numpy(),
            candidates.near_bounds.numpy(),
            candidates.far.numpy(),
            candidates.far_bounds.numpy(),
            found.near.numpy(),
            found.near_bounds.numpy(),
            farthest.numpy(),
            certain.numpy(),
            num_threads(),
        )
    found.far_bounds[:, 0] = -farthest
    uncertain = torch.nonzero(certain == 0).flatten()
    logger.info(
        "after the 8-bit search, %d of %d items are compared with all others in float32",
        len(uncertain),
        num,
    )
    if not all_agree(len(uncertain) < num / 8, shard):
        return None
    for items in uncertain.split(ROWS_AT_ONCE):
        fill_rows(found, features, items, product)
    return found.neighbors()


def pair_distances(
    features: FeatureMatrix, left: np.ndarray, right: np.ndarray, *, compiled: bool
) -> np.ndarray:
    """Squared distances float32 [P] of single pairs of items, int64 and int32 [P]."""
    distances = np.empty(len(left), np.float32)
    metric = features.arrays() if compiled else (), features.constant, features.resolution
    for first in range(0, len(left), PAIRS):
        piece = slice(first, first + PAIRS)
        pair = left[piece], right[piece]
        if compiled:
            nearest_cy.pair_distances(*metric, *pair, distances[piece], num_threads())
        else:
            items = (torch.from_numpy(side).to(features.device).long() for side in pair)
            distances[piece] = features.pair_distances(*items).cpu().numpy()
    return distances


def fill_rows(lists: Lists, features: FeatureMatrix, items: torch.Tensor, product: Product) -> None:
    """Compares some items, int64 [b], with all others; ties go to the lower position."""
    k = lists.near.shape[1]
    left = features.left_factor(items)
    tiles = [
        distance_tile(features, left, low, high, product, constant=features.constant)
        for low, high in features.spans(0, features.num_items, COLUMNS)
    ]
    # [b, N]
    rows = torch.cat(tiles, dim=1)
    rows.add_(features.squares[items, None]).clamp_(min=0)
    round_ties(rows, features.resolution)
    each = torch.arange(len(items), device=features.device)
    rows[each, items] = 0
    limit = torch.topk(rows, k, largest=False).values[:, -1]
    # At least k entries per row; row numbers are rising.
    row_of, near = torch.nonzero(rows <= limit[:, None], as_tuple=True)
    values = rows[row_of, near]
    order = sort_within_rows(row_of, values)
    first_of_row = torch.searchsorted(row_of, each)
    # [b, k]
    chosen = order[first_of_row[:, None] + torch.arange(k, device=features.device)]
    lists.near[items] = near[chosen].int()
    lists.near_bounds[items] = values[chosen]
    lists.far_bounds[items, 0] = -rows.amax(dim=1)
