"""Average query expansion: every feature becomes a weighted mean of its nearest neighbors' features.

Chum et al., "Total Recall", ICCV 2007; weights by similarity: Radenovic, Tolias, Chum, "Fine-tuning CNN Image
Retrieval with No Human Annotation", TPAMI 2019.

Letters: Q queries, G gallery entries, D dimensions, k neighbors, b rows of a block.
"""

import torch

from .checks import check_budget, check_feature_pair, check_positive_int
from .fast.matmul_backends import choose_product, full_precision
from .fast.neighbors import nearest_neighbors, use_compiled
from .fast.tiles import Rows, create_rows, plan_blocks


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

    Each is (1 / k) sum_j max(cos_ij, 0)^alpha x_j over its k nearest among all items, itself included; x_j
    are the features as given. `alpha` 0 is the plain mean; `times` repeats it. numpy in, numpy out; torch
    stays on its device.
    Raises: ValueError with one sentence on the first thing that is wrong.
    """
    check_positive_int(num_neighbors, "num_neighbors")
    check_positive_int(times, "times")
    check_budget(memory_gib)
    if not alpha >= 0:
        raise ValueError(f"alpha must be a number of at least 0, found {alpha!r}.")
    as_numpy = not isinstance(query, torch.Tensor)
    query, gallery = check_feature_pair(query, gallery)
    with torch.no_grad(), full_precision():
        for _ in range(times):
            query, gallery = _expand_once(query, gallery, num_neighbors, float(alpha), memory_gib)
    return (query.numpy(), gallery.numpy()) if as_numpy else (query, gallery)


def _expand_once(
    query: torch.Tensor, gallery: torch.Tensor, k: int, alpha: float, memory_gib: float | None
):
    rows = create_rows((query, gallery), "cosine")
    k = min(k, rows.num_items)
    compiled = use_compiled(rows)
    block = plan_blocks(
        f"query expansion of {rows.num_items:,} items",
        rows,
        rows.num_items,
        bytes_per_row=4 * ((0 if compiled else 8) * rows.num_items + 2 * k * rows.dims),
        bytes_fixed=rows.num_items * (4 * rows.dims + 8 * k + 8),
        memory_gib=memory_gib,
    )
    product = choose_product(rows.device, float(rows.num_items) ** 2 * rows.dims)
    found = nearest_neighbors(rows, k, product, block, compiled=compiled)
    weights = (1 - found.distances / 2).clamp_(min=0).pow_(alpha) / k  # cosines [N, k]
    expanded = torch.empty(rows.num_items, rows.dims, device=rows.device)
    for first, last in rows.spans(0, rows.num_items, block):
        expanded[first:last] = _weighted_sum(rows, found.indices[first:last], weights[first:last])
    return expanded[: len(query)], expanded[len(query) :]


def _weighted_sum(rows: Rows, indices: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """sum_j weights[i, j] x[indices[i, j]]: [b, k], [b, k] -> [b, D]."""
    nearest = rows.gather(indices.flatten().long()).view(*indices.shape, rows.dims)  # [b, k, D]
    return torch.einsum("bk,bkd->bd", weights, nearest)
