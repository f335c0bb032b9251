"""The nearest items of every item among all of them, and how far the farthest is, in tiles.

Letters: N items, k neighbors of each (the item itself is its own first neighbor), b rows of a block, K and F
candidates of an item for its nearest and its farthest.
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ..ranking import num_threads
from .device_ranking import sort_within_rows
from .int8_quantization import Codes, create_codes
from .matmul_backends import Product, product_integers
from .sharding import ALONE, Shard, all_agree, merge_lists
from .tiles import COLUMNS, Rows, distance_tile

try:
    from ..eval_cylib import neighbors_cy, rerank_cy
except ImportError:
    neighbors_cy = rerank_cy = None

logger = logging.getLogger("ember.evaluate")

SECONDS_OF_SILENCE = 3  # progress bars appear only for work that takes longer
NEAR, FAR = (
    4,
    64,
)  # candidates kept with codes: for each neighbor that is wanted, and for the farthest item
REFINED = 4096  # items refined at once: Python sees Ctrl-C in between
PAIRS = 4096  # pairs measured at once
FEW = 64  # items done at once over whole rows

Tiles = Callable[[int, int], Iterator[tuple[int, torch.Tensor]]]


class Neighbors(NamedTuple):
    """Nearest items by (distance, position), and the largest distance of each row."""

    indices: torch.Tensor  # int32 [N, k]
    distances: torch.Tensor  # float32 [N, k]  squared
    farthest: torch.Tensor  # float32 [N]


class Lists(NamedTuple):
    """Candidates of every item, rising by bound; of equal bounds the lower position comes first.

    A bound says that the distance is at least this, or, for the farthest items, that minus the distance is. From
    distances in float32 it is the distance itself.
    """

    near: torch.Tensor  # int32 [N, K]
    near_bounds: torch.Tensor  # float32 [N, K]; infinity where there is no item
    far: torch.Tensor  # int32 [N, F]
    far_bounds: torch.Tensor  # float32 [N, F]


def has_kernel(backend: str = "auto") -> bool:
    """Whether the compiled kernels were built and are wanted."""
    return neighbors_cy is not None and backend != "python"


def use_compiled(rows: Rows, backend: str = "auto") -> bool:
    """Whether they serve for neighbors, too: where the features are in the CPU's memory."""
    return has_kernel(backend) and rows.device.type == "cpu"


def nearest_neighbors(
    rows: Rows,
    k: int,
    product: Product,
    block: int,
    *,
    compiled: bool,
    coded: bool = False,
    shard: Shard = ALONE,
) -> Neighbors:
    """The k nearest of every item: by the compiled kernel on a CPU, else in torch on the features' device.

    `coded` (compiled only) looks for candidates among eight-bit codes first; the result is the same. Processes that
    share the work each see part of the pairs, and all get the merged lists.
    """
    spans = shard.mine(rows.spans(0, rows.num_items, block))
    if coded:
        found = refine(rows, coded_lists(rows, k, spans, shard), k, product, shard)
        if found is not None:
            return found
    lists = create_lists(rows, k, 1)
    if compiled:
        exact = torch.zeros(rows.num_items)  # there is no error to allow for
        fill_lists(lists, k, spans, partial(float_tiles, rows, product), exact, exact, 0.0)
    else:
        for first, last in tqdm(
            spans, desc="neighbors", delay=SECONDS_OF_SILENCE, disable=None, leave=False
        ):
            take_rows(lists, rows, torch.arange(first, last, device=rows.device), product)
    return exact_neighbors(merged(lists, shard))


def create_lists(rows: Rows, num_near: int, num_far: int) -> Lists:
    """Lists of the given lengths, with nothing in them."""
    shapes = [(rows.num_items, length) for length in (num_near, num_far)]
    empty = [
        (rows.scales.new_zeros(shape, dtype=torch.int32), rows.scales.new_full(shape, torch.inf))
        for shape in shapes
    ]
    return Lists(*empty[0], *empty[1])


def merged(lists: Lists, shard: Shard) -> Lists:
    """The lists of all processes as one."""
    return Lists(
        *merge_lists(lists.near, lists.near_bounds, shard),
        *merge_lists(lists.far, lists.far_bounds, shard),
    )


def exact_neighbors(lists: Lists) -> Neighbors:
    """What lists hold whose bounds are distances."""
    return Neighbors(lists.near, lists.near_bounds, -lists.far_bounds[:, 0])


def fill_lists(
    lists: Lists,
    k: int,
    spans: list,
    tiles: Tiles,
    residuals: torch.Tensor,
    reaches: torch.Tensor,
    slack: float,
) -> None:
    """Rows of each span against themselves and all behind: each tile serves its rows and its columns.

    Of an item only what may be among its k nearest, or be its farthest, is taken: see `codes.Codes` for the errors.
    """
    errors = residuals.numpy(), reaches.numpy(), slack
    num = len(lists.near)
    near = lists.near.numpy(), lists.near_bounds.numpy(), np.full((num, k), np.inf, np.float32)
    far = lists.far.numpy(), lists.far_bounds.numpy(), np.full((num, 1), np.inf, np.float32)
    for first, last in tqdm(
        spans, desc="neighbors", delay=SECONDS_OF_SILENCE, disable=None, leave=False
    ):
        for low, tile in tiles(first, last):
            neighbors_cy.update_lists(tile.numpy(), first, low, *errors, near, far, num_threads())


def float_tiles(
    rows: Rows, product: Product, first: int, last: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """(low, distances [b, n] of items first..last-1 to items low..), up to the last item."""
    left = rows.left_factor(torch.arange(first, last))
    for low, high in rows.spans(first, rows.num_items, COLUMNS):
        tile = distance_tile(rows, left, low, high, product, constant=rows.constant)
        if not rows.constant:
            tile += rows.squares[first:last, None]
        yield low, tile


def code_tiles(
    codes: Codes, products: torch.Tensor, tile: torch.Tensor, first: int, last: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """The same of codes, by way of two buffers: int32 and float32 [b * COLUMNS]."""
    steps, squares = codes.steps.numpy(), codes.squares.numpy()
    for low in range(first, len(steps), COLUMNS):
        high = min(low + COLUMNS, len(steps))
        whole, out = (
            buffer[: (last - first) * (high - low)].view(last - first, -1)
            for buffer in (products, tile)
        )
        product_integers(codes.values[first:last], codes.values[low:high], out=whole)
        neighbors_cy.decode_tile(
            whole.numpy(),
            steps[first:last],
            squares[first:last],
            steps[low:high],
            squares[low:high],
            out.numpy(),
            num_threads(),
        )
        yield low, out


def coded_lists(rows: Rows, k: int, spans: list, shard: Shard) -> Lists:
    """Candidates out of the codes of all items."""
    codes = create_codes(rows)
    size = max((last - first for first, last in spans), default=0) * COLUMNS
    tiles = partial(code_tiles, codes, torch.empty(size, dtype=torch.int32), torch.empty(size))
    lists = create_lists(rows, NEAR * k, FAR)
    fill_lists(lists, k, spans, tiles, codes.residuals, codes.reaches, codes.slack)
    return merged(lists, shard)


def refine(rows: Rows, lists: Lists, k: int, product: Product, shard: Shard) -> Neighbors | None:
    """Measures candidates in float32 until no other item can come before them.

    Items whose lists end too early for that are compared with all others. None where they are so many that
    all items are better compared with all.
    """
    num = rows.num_items
    found = create_lists(rows, k, 1)
    farthest, certain = torch.zeros(num), torch.zeros(num, dtype=torch.int8)
    arrays = [
        tensor.numpy() for tensor in (*lists, found.near, found.near_bounds, farthest, certain)
    ]
    features, starts = rows.arrays(), range(0, num, REFINED)
    for first in tqdm(
        starts, desc="distances", delay=SECONDS_OF_SILENCE, disable=None, leave=False
    ):
        last = min(first + REFINED, num)
        neighbors_cy.refine(features, rows.constant, first, last, *arrays, num_threads())
    found.far_bounds[:, 0] = -farthest
    uncertain = torch.nonzero(certain == 0).flatten()
    logger.info(
        "codes of 8 bits left %d of %d items to compare with all in float32", len(uncertain), num
    )
    if not all_agree(len(uncertain) < num / 8, shard):
        return None
    for items in uncertain.split(FEW):
        take_rows(found, rows, items, product)
    return exact_neighbors(found)


def pair_distances(
    rows: Rows, left: np.ndarray, right: np.ndarray, *, compiled: bool
) -> np.ndarray:
    """Squared distances float32 [P] of single pairs of items, int64 and int32 [P]."""
    distances = np.empty(len(left), np.float32)
    features = rows.arrays() if compiled else None
    for first in range(0, len(left), PAIRS):
        piece = slice(first, first + PAIRS)
        if compiled:
            neighbors_cy.pair_distances(
                features, rows.constant, left[piece], right[piece], distances[piece], num_threads()
            )
        else:
            items = (torch.from_numpy(side[piece]).to(rows.device).long() for side in (left, right))
            distances[piece] = rows.pair_distances(*items).cpu().numpy()
    return distances


def take_rows(lists: Lists, rows: Rows, items: torch.Tensor, product: Product) -> None:
    """Some items, int64 [b], against all; equal distances at the k-th place go to the lower position."""
    k = lists.near.shape[1]
    left = rows.left_factor(items)
    tile = torch.cat(
        [
            distance_tile(rows, left, low, high, product, constant=rows.constant)
            for low, high in rows.spans(0, rows.num_items, COLUMNS)
        ],
        dim=1,
    )  # [b, N]
    tile.add_(rows.squares[items, None]).clamp_(min=0)
    each = torch.arange(len(items), device=rows.device)
    tile[each, items] = 0
    limit = torch.topk(tile, k, largest=False).values[:, -1]
    of_row, near = torch.nonzero(
        tile <= limit[:, None], as_tuple=True
    )  # at least k a row, rows rising
    values = tile[of_row, near]
    order = sort_within_rows(of_row, values)
    row_starts = torch.searchsorted(of_row, each)
    chosen = order[row_starts[:, None] + torch.arange(k, device=rows.device)]  # [b, k]
    lists.near[items] = near[chosen].int()
    lists.near_bounds[items] = values[chosen]
    lists.far_bounds[items, 0] = -tile.amax(dim=1)
