"""Float32 arithmetic under automatic mixed precision (AMP), and distances between rows.

Losses and poolings are always computed in float32. Layers that belong to a loss (adapters,
projections) use the precision that AMP chose for their input. B, N: rows, D: dimension.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor


def no_autocast(tensor: Tensor) -> AbstractContextManager[None]:
    """A context that disables autocast for the device of `tensor`."""
    kind = tensor.device.type
    # The meta device has no autocast.
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def autocast_like(tensor: Tensor) -> AbstractContextManager[None]:
    """A context that autocasts to the dtype of `tensor` if that is a half precision."""
    if tensor.dtype not in (torch.float16, torch.bfloat16):
        return nullcontext()
    return torch.autocast(tensor.device.type, dtype=tensor.dtype)


def as_float(tensor: Tensor) -> Tensor:
    """`tensor` in float32 if it has half precision; float32 and float64 are returned unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


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
