"""Exact k-reciprocal re-ranking in O(N k) memory, float32 throughout.

Zhong, Zheng, Cao, Li: "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
With D the squared Euclidean distances of all N = Q + G items and D'[i, j] = D[i, j] / max_r D[i, r]:
    N(i, k)  the k + 1 nearest of i, itself included; of equally near ones the first        (eq. 2)
    R(i, k)  {j in N(i, k): i in N(j, k)}                                                   (eq. 3)
    R*(i)    R(i, k1), and every R(c, k1 / 2) with c in R(i, k1) of which more than two
             thirds lie in R(i, k1)                                                         (eq. 5)
    V[i, j]  exp(-D'[i, j]) for j in R*(i), divided by their sum; 0 elsewhere               (eq. 7)
    V[i]     <- the mean of V over the first k2 nearest of i, itself included               (eq. 11)
    J[i, j]  1 - s / (2 - s) with s = sum_m min(V[i, m], V[j, m])                           (eq. 10)
    result   (1 - lambda) J + lambda D'                                                     (eq. 12)
As in the authors' program, and not in the paper, V is divided by its sum, and k1 / 2 is rounded half to even.
Where we depart from it: V and J stay float32 (float16 there, which moves distances by up to 3e-3).
All of it is sparse but D, which is seen in tiles only.
Letters: Q queries, G gallery entries, D dimensions, k = k1 + 1, b rows of a block.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from .checks import check_feature_pair, check_fraction, check_positive_int
from .fast.int8_quantization import BYTES_PER_ITEM, MOST_DIMS
from .fast.matmul_backends import Product, choose_product, full_precision, prefer_integers
from .fast.neighbors import (
    FAR,
    NEAR,
    PAIRS,
    Neighbors,
    has_kernel,
    nearest_neighbors,
    pair_distances,
    rerank_cy,
    use_compiled,
)
from .fast.sharding import ALONE, Shard, all_agree
from .fast.tiles import COLUMNS, GIB, Rows, create_rows, distance_tile, plan_blocks
from .ranking import num_threads

SETTLING_BYTES = 17  # for each gallery entry and thread, while queries are settled
SPARSE_BYTES = 64  # for each stored neighbor, in all sparse matrices alive at once


class Rerank(NamedTuple):
    """Parameters of k-reciprocal re-ranking; the published defaults."""

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3


class Plan(NamedTuple):
    """How the neighbors are found."""

    block: int  # rows of a block
    compiled: bool  # by the kernel
    coded: bool  # among eight-bit codes first


class Encoding(NamedTuple):
    """What the tiles of final distances need."""

    query: sparse.csr_array  # float32 [Q, N]    V of the queries
    gallery: sparse.csc_array  # float32 [G, N]  V of the gallery, by column: an inverted index
    neighbors: Neighbors  # of all N items
    lambda_value: float


def rerank_distances(query, gallery, *, k1: int = 20, k2: int = 6, lambda_value: float = 0.3):
    """Re-ranked distances [Q, G] float32 between features [Q, D] and [G, D], which are L2-normalized first.

    Returns a torch tensor on the features' device for torch input, else a numpy array. Only this result is
    dense.
    Raises: ValueError with one sentence on the first thing that is wrong.
    """
    rerank = check_rerank(Rerank(k1, k2, lambda_value))
    as_numpy = not isinstance(query, torch.Tensor)
    query, gallery = check_feature_pair(query, gallery)
    with torch.no_grad(), full_precision():
        rows = create_rows((query, gallery), "cosine")
        compiled = has_kernel()
        product = choose_product(rows.device, float(rows.num_items) ** 2 * rows.dims)
        plan = plan_reranking(rows, len(query), rerank)
        encoding = encode(rows, len(query), rerank, product, plan)
        result = query.new_empty(len(query), len(gallery))
        for first, last in rows.spans(0, len(query), plan.block):
            items = torch.arange(first, last, device=rows.device)
            write_reranked(
                result[first:last],
                items,
                encoding=encoding,
                rows=rows,
                product=product,
                compiled=compiled,
            )
    return result.numpy() if as_numpy else result


def check_rerank(rerank: Rerank) -> Rerank:
    """The parameters, when they make sense. k1 may exceed the number of items: then all are neighbors."""
    if not isinstance(rerank, Rerank):
        raise ValueError(f"rerank must be None or Rerank(k1, k2, lambda_value), found {rerank!r}.")
    k1, k2 = check_positive_int(rerank.k1, "k1"), check_positive_int(rerank.k2, "k2")
    if k2 > k1 + 1:
        raise ValueError(
            f"k2 must be at most k1 + 1, the number of neighbors kept, found k2 {k2} and k1 {k1}."
        )
    return Rerank(k1, k2, check_fraction(rerank.lambda_value, "lambda_value"))


def plan_reranking(
    rows: Rows,
    num_query: int,
    rerank: Rerank,
    memory_gib: float | None = None,
    *,
    backend: str = "auto",
    shard: Shard = ALONE,
) -> Plan:
    """The plan under the budget; codes are left out of it where they are no faster, or do not fit."""
    num, k = rows.num_items, min(rerank.k1 + 1, rows.num_items)
    compiled = use_compiled(rows, backend)
    # without the kernel, neighbors come from whole rows and a sort of what is near; the sparse part was seen to
    # stay below what is reckoned here
    width = num - num_query if compiled else 6 * num
    needs = (
        num * (8 * k + 8)
        + num * k * SPARSE_BYTES
        + PAIRS * rows.dims * 12
        + SETTLING_BYTES * num_threads() * num
    )
    more = num * (rows.dims + BYTES_PER_ITEM + 8 * (NEAR * k + FAR))
    coded = (
        compiled
        and rows.dims <= MOST_DIMS
        and prefer_integers(rows.device, float(num) ** 2 * rows.dims)
    )
    coded = all_agree(coded, shard) and (memory_gib is None or needs + more < memory_gib * GIB / 2)
    block = plan_blocks(
        f"re-ranking {num:,} items",
        rows,
        num,
        bytes_per_row=4 * width,
        bytes_fixed=needs + coded * more,
        memory_gib=memory_gib,
    )
    return Plan(block, compiled, coded)


def encode(
    rows: Rows, num_query: int, rerank: Rerank, product: Product, plan: Plan, shard: Shard = ALONE
) -> Encoding:
    """From features to sparse weights V (eq. 2 to 11)."""
    k = min(rerank.k1 + 1, rows.num_items)
    neighbors = nearest_neighbors(
        rows, k, product, plan.block, compiled=plan.compiled, coded=plan.coded, shard=shard
    )
    neighbors = neighbors._replace(
        farthest=neighbors.farthest.clamp_(min=1e-12)
    )  # all items equal: D' is 0
    indices = neighbors.indices.cpu().numpy()
    pattern = expanded_neighbors(indices, rerank.k1)
    weights = neighbor_weights(pattern, rows, neighbors, compiled=plan.compiled)
    if rerank.k2 > 1:
        nearest = indices[:, : rerank.k2]
        weights = membership(nearest, np.float32) @ weights
        weights.data /= nearest.shape[1]
    return Encoding(
        weights[:num_query], weights[num_query:].tocsc(), neighbors, rerank.lambda_value
    )


def membership(indices: np.ndarray, dtype=np.int32) -> sparse.csr_array:
    """[N, k] neighbors as a sparse [N, N] matrix of ones."""
    num, k = indices.shape
    ones = np.ones(num * k, dtype)
    starts = np.arange(0, num * k + 1, k, dtype=np.int32)
    matrix = sparse.csr_array(
        (ones, indices.flatten(), starts), (num, num)
    )  # a copy: sorting is in place
    matrix.sort_indices()
    return matrix


def mutual(indices: np.ndarray) -> sparse.csr_array:
    """R(i, k) as a sparse [N, N] matrix of ones (eq. 3)."""
    near = membership(indices)
    return near.multiply(near.T.tocsr()).tocsr()


def expanded_neighbors(indices: np.ndarray, k1: int) -> sparse.csr_array:
    """R*(i) as the pattern of a sparse [N, N] matrix (eq. 5)."""
    reciprocal = mutual(indices)
    half = mutual(indices[:, : round(k1 / 2) + 1])  # Python rounds half to even
    sizes = np.diff(half.indptr)
    candidates = (reciprocal @ half.T.tocsr()).multiply(reciprocal).tocsr()
    candidates.data = (3 * candidates.data > 2 * sizes[candidates.indices]).astype(np.int32)
    candidates.eliminate_zeros()
    expanded = reciprocal + candidates @ half
    expanded.sort_indices()
    return expanded


def neighbor_weights(
    pattern: sparse.csr_array, rows: Rows, neighbors: Neighbors, *, compiled: bool
) -> sparse.csr_array:
    """V before its local mean (eq. 7): distances from the lists, or computed anew for what is not there."""
    indices = neighbors.indices.cpu().numpy()
    num, k = indices.shape
    owner = np.repeat(np.arange(num, dtype=np.int64), np.diff(pattern.indptr))
    order = np.argsort(indices, axis=1)
    stored_keys = (
        np.take_along_axis(indices, order, axis=1) + np.arange(num, dtype=np.int64)[:, None] * num
    ).ravel()
    stored = np.take_along_axis(neighbors.distances.cpu().numpy(), order, axis=1).ravel()
    keys = owner * num + pattern.indices
    place = np.minimum(np.searchsorted(stored_keys, keys), num * k - 1)
    distances = stored[place]
    missing = np.flatnonzero(stored_keys[place] != keys)
    distances[missing] = pair_distances(
        rows, owner[missing], pattern.indices[missing], compiled=compiled
    )
    weights = np.exp(-distances / neighbors.farthest.cpu().numpy()[owner])
    sums = np.bincount(owner, weights, minlength=num).astype(np.float32)
    return sparse.csr_array((weights / sums[owner], pattern.indices, pattern.indptr), (num, num))


def write_reranked(
    out: torch.Tensor,
    items: torch.Tensor,
    *,
    encoding: Encoding,
    rows: Rows,
    product: Product,
    compiled: bool,
) -> None:
    """Final distances of queries `items`, int64 [b], to the whole gallery, into `out` [b, G] (eq. 10 and 12)."""
    num_query, keep = encoding.query.shape[0], encoding.lambda_value
    query, gallery = encoding.query[items.cpu().numpy()], encoding.gallery
    scales = keep / encoding.neighbors.farthest[items]
    if keep > 0:
        left = rows.left_factor(items)
        for low, high in rows.spans(num_query, rows.num_items, COLUMNS):
            tile = distance_tile(rows, left, low, high, product, constant=rows.constant)
            out[:, low - num_query : high - num_query] = tile
        out.add_(rows.squares[items, None]).clamp_(min=0)
    else:
        out.zero_()
    if not compiled:
        shared = torch.from_numpy(shared_weights(query, gallery)).to(rows.device)
        out.mul_(scales[:, None]).add_(1 - shared / (2 - shared), alpha=1 - keep)
        return
    on_cpu = rows.device.type == "cpu"
    target = (
        out if on_cpu else torch.zeros(out.shape)
    )  # on a GPU the sparse part is added from here
    rerank_cy.add_jaccard(
        target.numpy(),
        query.indptr,
        (query.indices, query.data, gallery.indptr, gallery.indices, gallery.data),
        scales.cpu().numpy(),
        keep,
        num_threads(),
    )
    if not on_cpu:
        out.mul_(scales[:, None]).add_(target.to(out.device))


def shared_weights(query: sparse.csr_array, gallery: sparse.csc_array) -> np.ndarray:
    """s[i, j] = sum_m min(V[i, m], V[j, m]) for sparse queries [b, N] and gallery [G, N], float32 [b, G].

    Walks a query's non-zero weights and, for each, the gallery entries that share it: an inverted index.
    """
    shared = np.zeros((query.shape[0], gallery.shape[0]), np.float32)
    for i in range(query.shape[0]):
        for e in range(query.indptr[i], query.indptr[i + 1]):
            column = slice(*gallery.indptr[query.indices[e] : query.indices[e] + 2])
            shared[i, gallery.indices[column]] += np.minimum(query.data[e], gallery.data[column])
    return shared
