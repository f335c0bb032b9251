"""Average query expansion: every feature becomes a weighted mean of its neighbors' features.

Chum et al., "Total Recall", ICCV 2007. Weights by similarity: Radenovic, Tolias, Chum, "Fine-tuning
CNN Image Retrieval with No Human Annotation", TPAMI 2019.
Letters: Q queries, G gallery entries, N = Q + G, D dimensions, k neighbors, b rows of a block.
"""

import torch

from .fast.neighbors import has_kernels, nearest_neighbors
from .fast.tiles import (
    FeatureMatrix,
    choose_product,
    create_feature_matrix,
    full_precision,
    plan_blocks,
)
from .inputs import check_budget, check_feature_pair, check_positive_int, is_number, shown


def expand_features(
    query,
    gallery,
    *,
    num_neighbors: int = 5,
    alpha: float = 3.0,
    times: int = 1,
    memory_gib: float | None = None,
):
    """Expanded features of queries [Q, D] and gallery [G, D].

    Each is (1 / k) sum_j max(cos_ij, 0)^alpha x_j over its k nearest of all items, itself
    included; x_j are the features as given.

    Args:
        alpha: 0 is the plain mean.
        times: how often the expansion is repeated.

    Returns:
        (query, gallery): numpy for numpy input; tensors stay on their device.

    Raises:
        ValueError: one sentence about the first invalid argument.
    """
    check_positive_int(num_neighbors, "num_neighbors")
    check_positive_int(times, "times")
    check_budget(memory_gib)
    if not is_number(alpha) or not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha must be a number of at least 0, found {shown(alpha)}.")
    as_numpy = not isinstance(query, torch.Tensor)
    query, gallery = check_feature_pair(query, gallery)
    with torch.no_grad(), full_precision():
        for _ in range(times):
            query, gallery = _expand_once(query, gallery, num_neighbors, float(alpha), memory_gib)
    return (query.numpy(), gallery.numpy()) if as_numpy else (query, gallery)


def _expand_once(
    query: torch.Tensor, gallery: torch.Tensor, k: int, alpha: float, memory_gib: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    features = create_feature_matrix((query, gallery), "cosine")
    num = features.num_items
    k = min(k, num)
    compiled = has_kernels() and features.device.type == "cpu"
    block = plan_blocks(
        f"query expansion of {num:,} items",
        features,
        num,
        bytes_per_row=4 * ((0 if compiled else 8) * num + 2 * k * features.dims),
        bytes_fixed=num * (4 * features.dims + 8 * k + 8),
        memory_gib=memory_gib,
    )
    product = choose_product(features.device, float(num) ** 2 * features.dims)
    neighbors = nearest_neighbors(features, k, product, block, compiled=compiled)
    # [N, k]
    cosines = 1 - neighbors.distances / 2
    weights = cosines.clamp_(min=0).pow_(alpha) / k
    expanded = torch.empty(num, features.dims, device=features.device)
    for first, last in features.spans(0, num, block):
        indices = neighbors.indices[first:last]
        expanded[first:last] = _weighted_sum(features, indices, weights[first:last])
    return expanded[: len(query)], expanded[len(query) :]


def _weighted_sum(
    features: FeatureMatrix, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """sum_j weights[i, j] x[indices[i, j]]: [b, k], [b, k] -> [b, D]."""
    nearest = features.gather(indices.flatten().long()).view(*indices.shape, features.dims)
    return torch.einsum("bk,bkd->bd", weights, nearest)
