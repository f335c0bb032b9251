"""k-reciprocal re-ranking with sparse matrices, in O(N k) memory and float32.

The equations are those of `reference.reference_rerank`, in matrices:
    R(i, k)   near * near^T, elementwise, of the sparse [N, N] neighbor matrix      (eq. 3)
    R*(i)     R(i, k1) + C H: C selects candidates by the 2/3 rule, H = R(., k1/2)  (eq. 5)
    V         exp(-D') on the pattern of R*, rows divided by their sum             (eq. 7)
    V         near[:, :k2] V / k2                                                   (eq. 11)
The authors' program stores V and the Jaccard distance in float16, which moves distances by up to
3e-3; here they are float32.
Letters: Q queries, G gallery entries, N = Q + G, D dimensions, k = k1 + 1, b rows of a block.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse

from ..inputs import Rerank
from ..ranking import num_threads
from .int8_quantization import BYTES_PER_ITEM, MAX_DIMS
from .matmul_backends import Product, prefer_integers
from .neighbors import (
    NUM_FAR,
    NUM_NEAR,
    PAIRS,
    Neighbors,
    has_kernels,
    jaccard_cy,
    nearest_neighbors,
    pair_distances,
)
from .sharding import SINGLE_PROCESS, Shard, all_agree
from .tiles import (
    COLUMNS,
    GIB,
    FeatureMatrix,
    choose_product,
    distance_tile,
    plan_blocks,
    round_ties,
)

# Per gallery entry and thread, while ranks are computed from bounds.
BOUNDS_BYTES = 17
# Resolution of re-ranked distances, see `reference.round_ties`.
RESOLUTION = 2.0**-20
# Per stored neighbor, in all sparse matrices that exist at once.
SPARSE_BYTES = 64


@dataclass(frozen=True)
class RerankingPlan:
    """How neighbors and distances are computed.

    Attributes:
        block: number of rows in a block.
        product: the matrix product.
        compiled: use the compiled kernels for the sparse part.
        compiled_neighbors: use them for the neighbors, too; needs features in CPU memory.
        quantized: search for neighbors among 8-bit codes first.
    """

    block: int
    product: Product
    compiled: bool
    compiled_neighbors: bool
    quantized: bool


@dataclass(frozen=True, eq=False)
class Encoding:
    """The data for tiles of re-ranked distances.

    Attributes:
        query: float32 [Q, N], V of the queries.
        gallery: float32 [G, N], V of the gallery, by column: an inverted index.
        neighbors: of all N items.
        features: of all N items.
        lambda_value: weight of the original distance.
    """

    query: sparse.csr_array
    gallery: sparse.csc_array
    neighbors: Neighbors
    features: FeatureMatrix
    lambda_value: float


def plan_reranking(
    features: FeatureMatrix,
    num_query: int,
    rerank: Rerank,
    memory_gib: float | None = None,
    *,
    backend: str = "auto",
    shard: Shard = SINGLE_PROCESS,
) -> RerankingPlan:
    """The plan under the budget; without 8-bit codes if they are not faster or do not fit."""
    num, k = features.num_items, min(rerank.k1 + 1, features.num_items)
    compiled = has_kernels(backend)
    compiled_neighbors = compiled and features.device.type == "cpu"
    work = float(num) ** 2 * features.dims
    # Without the kernel, neighbors need whole rows and a sort of near entries. The sparse part
    # was measured to need less than SPARSE_BYTES per neighbor.
    width = num - num_query if compiled_neighbors else 6 * num
    needed = (
        num * (8 * k + 8)
        + num * k * SPARSE_BYTES
        + PAIRS * features.dims * 12
        + BOUNDS_BYTES * num_threads() * num
    )
    codes = num * (features.dims + BYTES_PER_ITEM + 8 * (NUM_NEAR * k + NUM_FAR))
    quantized = (
        compiled_neighbors and features.dims <= MAX_DIMS and prefer_integers(features.device, work)
    )
    quantized = all_agree(quantized, shard) and (
        memory_gib is None or needed + codes < memory_gib * GIB / 2
    )
    block = plan_blocks(
        f"re-ranking {num:,} items",
        features,
        num,
        bytes_per_row=4 * width,
        bytes_fixed=needed + quantized * codes,
        memory_gib=memory_gib,
    )
    product = choose_product(features.device, work)
    return RerankingPlan(block, product, compiled, compiled_neighbors, quantized)


def encode(
    features: FeatureMatrix,
    num_query: int,
    rerank: Rerank,
    plan: RerankingPlan,
    shard: Shard = SINGLE_PROCESS,
) -> Encoding:
    """Compute the sparse weights V from features (eq. 2 to 11)."""
    neighbors = nearest_neighbors(
        features,
        min(rerank.k1 + 1, features.num_items),
        plan.product,
        plan.block,
        compiled=plan.compiled_neighbors,
        quantized=plan.quantized,
        shard=shard,
    )
    # If all items are equal, D' is 0.
    neighbors = replace(neighbors, farthest=neighbors.farthest.clamp(min=1e-12))
    weights = average_weights(features, neighbors, rerank.k1, rerank.k2, plan)
    return Encoding(
        query=weights[:num_query],
        gallery=weights[num_query:].tocsc(),
        neighbors=neighbors,
        features=features,
        lambda_value=rerank.lambda_value,
    )


def average_weights(
    features: FeatureMatrix, neighbors: Neighbors, k1: int, k2: int, plan: RerankingPlan
) -> sparse.csr_array:
    """V as a sparse float32 [N, N] matrix (eq. 3 to 11) from the neighbors of all items."""
    indices = neighbors.indices.cpu().numpy()
    pattern = expanded_neighbors(indices, k1)
    weights = neighbor_weights(pattern, features, neighbors, compiled=plan.compiled_neighbors)
    if k2 > 1:
        nearest = indices[:, :k2]
        weights = membership(nearest, np.float32) @ weights
        weights.data /= nearest.shape[1]
    return weights


def membership(indices: np.ndarray, dtype: type = np.int32) -> sparse.csr_array:
    """Neighbors [N, k] as a sparse [N, N] matrix of ones."""
    num, k = indices.shape
    ones = np.ones(num * k, dtype)
    starts = np.arange(0, num * k + 1, k, dtype=np.int32)
    # flatten() copies; the indices are sorted in place.
    matrix = sparse.csr_array((ones, indices.flatten(), starts), (num, num))
    matrix.sort_indices()
    return matrix


def reciprocal_neighbors(indices: np.ndarray) -> sparse.csr_array:
    """R(i, k) as a sparse [N, N] matrix of ones (eq. 3)."""
    near = membership(indices)
    return near.multiply(near.T.tocsr()).tocsr()


def expanded_neighbors(indices: np.ndarray, k1: int) -> sparse.csr_array:
    """R*(i) as the pattern of a sparse [N, N] matrix (eq. 5)."""
    reciprocal = reciprocal_neighbors(indices)
    # Python rounds half to even, like the authors' program.
    half = reciprocal_neighbors(indices[:, : round(k1 / 2) + 1])
    sizes = np.diff(half.indptr)
    candidates = (reciprocal @ half.T.tocsr()).multiply(reciprocal).tocsr()
    candidates.data = (3 * candidates.data > 2 * sizes[candidates.indices]).astype(np.int32)
    candidates.eliminate_zeros()
    expanded = reciprocal + candidates @ half
    expanded.sort_indices()
    return expanded


def neighbor_weights(
    pattern: sparse.csr_array, features: FeatureMatrix, neighbors: Neighbors, *, compiled: bool
) -> sparse.csr_array:
    """V before it is averaged (eq. 7).

    Distances come from the neighbor lists; those that are not in the lists are computed.
    """
    indices = neighbors.indices.cpu().numpy()
    num, k = indices.shape
    owner = np.repeat(np.arange(num, dtype=np.int64), np.diff(pattern.indptr))
    order = np.argsort(indices, axis=1)
    stored_columns = np.take_along_axis(indices, order, axis=1)
    stored_keys = (stored_columns + np.arange(num, dtype=np.int64)[:, None] * num).ravel()
    stored = np.take_along_axis(neighbors.distances.cpu().numpy(), order, axis=1).ravel()
    keys = owner * num + pattern.indices
    place = np.minimum(np.searchsorted(stored_keys, keys), num * k - 1)
    distances = stored[place]
    missing = np.flatnonzero(stored_keys[place] != keys)
    distances[missing] = pair_distances(
        features, owner[missing], pattern.indices[missing], compiled=compiled
    )
    weights = np.exp(-distances / neighbors.farthest.cpu().numpy()[owner])
    sums = np.bincount(owner, weights, minlength=num).astype(np.float32)
    return sparse.csr_array((weights / sums[owner], pattern.indices, pattern.indptr), (num, num))


def write_reranked(
    out: torch.Tensor, items: torch.Tensor, *, encoding: Encoding, plan: RerankingPlan
) -> None:
    """Write the re-ranked distances of queries `items`, int64 [b], into `out` [b, G] (eq. 12)."""
    features, lambda_value = encoding.features, encoding.lambda_value
    num_query = encoding.query.shape[0]
    query, gallery = encoding.query[items.cpu().numpy()], encoding.gallery
    if lambda_value > 0:
        left = features.left_factor(items)
        for low, high in features.spans(num_query, features.num_items, COLUMNS):
            tile = distance_tile(
                features, left, low, high, plan.product, constant=features.constant
            )
            out[:, low - num_query : high - num_query] = tile
        out.add_(features.squares[items, None]).clamp_(min=0)
        round_ties(out, features.resolution)
    else:
        out.zero_()
    scales = lambda_value / encoding.neighbors.farthest[items]
    if not plan.compiled:
        out.mul_(scales[:, None])
        shared = torch.from_numpy(shared_weights(query, gallery)).to(features.device)
        out += (1 - shared / (2 - shared)).mul_(1 - lambda_value)
        round_ties(out, RESOLUTION)
        return
    # On a GPU, the sparse part is computed on the CPU and added.
    on_cpu = features.device.type == "cpu"
    target = out if on_cpu else torch.zeros(out.shape)
    jaccard_cy.add_jaccard(
        target.numpy(),
        query.indptr,
        (query.indices, query.data, gallery.indptr, gallery.indices, gallery.data),
        scales.cpu().numpy(),
        lambda_value,
        num_threads(),
    )
    if not on_cpu:
        round_ties(out.mul_(scales[:, None]).add_(target.to(out.device)), RESOLUTION)


def shared_weights(query: sparse.csr_array, gallery: sparse.csc_array) -> np.ndarray:
    """s[i, j] = sum_m min(V[i, m], V[j, m]) (eq. 10), float32 [b, G].

    For each weight of a query, visits the gallery entries that share it: an inverted index.

    Args:
        query, gallery: V of queries [b, N] and gallery [G, N].
    """
    shared = np.zeros((query.shape[0], gallery.shape[0]), np.float32)
    for i in range(query.shape[0]):
        for e in range(query.indptr[i], query.indptr[i + 1]):
            column = slice(*gallery.indptr[query.indices[e] : query.indices[e] + 2])
            shared[i, gallery.indices[column]] += np.minimum(query.data[e], gallery.data[column])
    return shared
