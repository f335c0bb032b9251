"""Distances between the rows of two matrices. B, N: rows, D: width."""

import torch
import torch.nn.functional as F
from ember_reid.layers.precision import as_float, no_autocast
from torch import Tensor


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances |x|^2 + |y|^2 - 2xy of x [B, D] and y [N, D], as [B, N] >= 0."""
    with no_autocast(x):
        x, y = as_float(x), as_float(y)
        norms = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1)
        return torch.addmm(norms, x, y.t(), alpha=-2).clamp(min=0)


def euclidean_distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances of x [B, D] and y [N, D], as [B, N].

    The square is kept above 1e-12, where its root still has a finite gradient (0 for equal rows).
    """
    return squared_distances(x, y).clamp(min=1e-12).sqrt()


def cosine_similarities(x: Tensor, y: Tensor) -> Tensor:
    """Cosines of the rows of x [B, D] and y [N, D], as [B, N]; a zero row has cosine 0 with everything."""
    with no_autocast(x):
        return F.normalize(as_float(x)) @ F.normalize(as_float(y)).t()
