"""Sparse Jaccard distances of neighbor sets between all items, for clustering.

Letters: N items, D dimensions, b rows of a block.
"""

import numpy as np
import torch
from scipy import sparse

from .fast.k_reciprocal import (
    Encoding,
    RerankingPlan,
    average_weights,
    plan_reranking,
    write_reranked,
)
from .fast.neighbors import Neighbors, nearest_neighbors
from .fast.sharding import SINGLE_PROCESS, current_shard
from .fast.tiles import FeatureMatrix, create_feature_matrix, full_precision
from .inputs import (
    Rerank,
    check_budget,
    check_feature_pair,
    check_fraction,
    check_positive_int,
    check_rerank,
)

# Items that share no weight have this distance; no distance is larger.
LARGEST_DISTANCE = 1.0


def jaccard_distances(
    features,
    *,
    k1: int = 30,
    k2: int = 6,
    radius: float = 0.6,
    memory_gib: float | None = None,
    distributed: bool = False,
) -> sparse.csr_array:
    """Jaccard distances 1 - s / (2 - s) of k-reciprocal neighbors, up to a radius.

    s is the sum of the minima of two rows of weights V (Zhong et al., CVPR 2017, equation 10). We
    follow the programs of SpCL and Cluster Contrast, which compute V as the re-ranking does, with
    two differences: an item has k1 neighbors, not k1 + 1, including itself, and the weights
    are exp(-d) of squared distances d that are not divided by the largest of the row.
    Distances are multiples of 2^-20, and exactly symmetric. N x N numbers never exist.

    Args:
        features: [N, D], torch or numpy; they are L2-normalized.
        k1, k2: neighbors of an item, and neighbors over which V is averaged.
        radius: largest distance that is stored, in [0, 1].
        memory_gib: budget beyond the features; None: no limit.
        distributed: share the search for neighbors among the processes of torch.distributed. All
            of them pass the same features and get the same distances.

    Returns:
        float32 [N, N]; zeros, such as the diagonal, are stored explicitly. Pairs that are not
        stored have a distance above the radius.

    Raises:
        ValueError: one sentence about the first invalid argument.
    """
    k1 = check_positive_int(k1, "k1")
    # The item itself counts as one of the k1 neighbors here, but not in the re-ranking.
    rerank = check_rerank(Rerank(max(k1 - 1, 1), k2, 0.0))
    check_budget(memory_gib)
    radius = check_fraction(radius, "radius")
    items, _ = check_feature_pair(features, features[:1])
    shard = current_shard() if distributed else SINGLE_PROCESS
    with torch.no_grad(), full_precision():
        matrix = create_feature_matrix((items, items[:0]), "cosine")
        plan = plan_reranking(matrix, 0, rerank, memory_gib, shard=shard)
        neighbors = nearest_neighbors(
            matrix,
            min(k1, len(items)),
            plan.product,
            plan.block,
            compiled=plan.compiled_neighbors,
            quantized=plan.quantized,
            shard=shard,
        )
        # Distances are not scaled: the largest one of each row is replaced by 1.
        neighbors.farthest.fill_(1)
        weights = average_weights(matrix, neighbors, k1, rerank.k2, plan)
        return _near_distances(matrix, neighbors, weights, plan, radius)


def _near_distances(
    features: FeatureMatrix,
    neighbors: Neighbors,
    weights: sparse.csr_array,
    plan: RerankingPlan,
    radius: float,
) -> sparse.csr_array:
    """All distances of at most the radius: re-ranked distances with lambda 0, in blocks of rows.

    Each pair is computed once. The rows of a block are compared with themselves and later items.
    """
    num = features.num_items
    buffer = features.scales.new_empty(min(plan.block, num) * num)
    rows, columns, distances = [], [], []
    for first, last in features.spans(0, num, plan.block):
        later = Encoding(weights, weights[first:].tocsc(), neighbors, features, 0.0)
        width = num - first
        block = buffer[: (last - first) * width].view(last - first, width)
        items = torch.arange(first, last, device=features.device)
        write_reranked(block, items, encoding=later, plan=plan)
        values = block.cpu().numpy().ravel()
        places = np.flatnonzero(values <= radius)
        row, column = np.divmod(places, width)
        is_upper = column > row
        rows.append((row[is_upper] + first).astype(np.int32))
        columns.append((column[is_upper] + first).astype(np.int32))
        # Rounding can move the distance of equal items below zero.
        distances.append(np.maximum(values[places[is_upper]], np.float32(0)))
    left, right, found = (np.concatenate(parts) for parts in (rows, columns, distances))
    own = np.arange(num, dtype=np.int32)
    entries = np.concatenate((found, found, np.zeros(num, np.float32)))
    pairs = (np.concatenate((left, right, own)), np.concatenate((right, left, own)))
    return sparse.coo_array((entries, pairs), (num, num)).tocsr()
