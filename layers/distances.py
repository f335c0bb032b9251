"""Distances between the rows of two matrices. B, N: rows, D: dimension."""

import torch
import torch.nn.functional as F
from ember_reid.layers.precision import as_float, no_autocast
from torch import Tensor


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances |x|^2 + |y|^2 - 2xy of x [B, D] and y [N, D]: [B, N], >= 0."""
    with no_autocast(x):
        x, y = as_float(x), as_float(y)
        norms = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1)
        return torch.addmm(norms, x, y.t(), alpha=-2).clamp(min=0)


def euclidean_distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances of x [B, D] and y [N, D]: [B, N].

    Squared distances are clamped to at least 1e-12, so the gradient of the root is finite (and 0
    for equal rows).
    """
    return squared_distances(x, y).clamp(min=1e-12).sqrt()


def cosine_similarities(x: Tensor, y: Tensor) -> Tensor:
    """Cosine similarities of the rows of x [B, D] and y [N, D]: [B, N]; 0 for a row of zeros."""
    with no_autocast(x):
        return F.normalize(as_float(x)) @ F.normalize(as_float(y)).t()
