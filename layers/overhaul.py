"""Feature distillation of "a comprehensive overhaul" (Heo et al., ICCV 2019).

N: images, C: channels.

The feature maps are compared before the ReLU that ends a stage. The sign of a negative value of the
teacher matters there, but its magnitude does not. Negative values are therefore clipped at a
margin, and a student value below a negative target is not penalized.
"""

import math
from typing import Any

import torch
from ember_reid.layers.numerics import as_float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Number of values that are squared at once. In float32, this many fit into the cache of a CPU core.
_CHUNK_SIZE = 2**18
# Below this fraction of negative values, their mean is not used.
_MIN_NEGATIVE_FRACTION = 1e-3


def negative_means(scale: Tensor, shift: Tensor) -> Tensor:
    """The margins of section 3.2: the mean of the negative values of N(shift, scale^2).

    Args:
        scale, shift: weight and bias [C] of the batch norm that produces the values.

    Returns:
        [C], all <= 0: shift - s * phi(shift / s) / Phi(-shift / s) with s = |scale|. If less than
        0.1 % of the values are negative, the margin is -3 s. A channel with scale 0 is constant;
        its margin is min(shift, 0).
    """
    s, shift = scale.detach().double().abs(), shift.detach().double()
    z = shift / s.clamp(min=1e-12)
    # The fraction of negative values, Phi(-z).
    fraction = 0.5 * torch.erfc(z / math.sqrt(2))
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    tail_mean = shift - s * density / fraction.clamp(min=_MIN_NEGATIVE_FRACTION)
    mean = torch.where(fraction > _MIN_NEGATIVE_FRACTION, tail_mean, -3 * s)
    return torch.where(s > 1e-12, mean, shift).clamp(max=0).to(scale.dtype)


def margin_relu(maps: Tensor, margins: Tensor) -> Tensor:
    """max(maps, margin) per channel: maps [N, C, H, W], margins [C]."""
    return torch.maximum(maps, margins.to(maps.dtype)[:, None, None])


def partial_distance(student: Tensor, target: Tensor) -> Tensor:
    """Sum of squared differences where the target is positive or the student is above it (eq. 4).

    Args:
        student: feature map [N, C, H, W].
        target: the teacher's feature map after `margin_relu`, of the same shape. It gets no
            gradient.
    """
    return _PartialDistance.apply(student, target.detach())


class _PartialDistance(torch.autograd.Function):
    """`partial_distance` with an explicit gradient, which halves the passes over the maps.

    The gradient is 2 (student - target) where the difference counts. Differences of half-precision
    maps are stored in half precision, because their gradient is rounded to it anyway. They are
    summed in float32.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, target: Tensor) -> Tensor:
        target = target.to(student.dtype)
        # Student values below a target that is not positive are raised to the target, so that their
        # difference is 0. `lower` is the target where it is not positive, and -infinity elsewhere.
        # On a CPU, `threshold` is several times faster than masks.
        lower = functional.threshold(-target, -torch.finfo(target.dtype).tiny, torch.inf).neg_()
        difference = torch.maximum(student, lower).sub_(target)
        ctx.save_for_backward(difference)
        chunks = difference.tensor_split(1 + difference.numel() // _CHUNK_SIZE)
        total = as_float(chunks[0]).square().sum()
        for chunk in chunks[1:]:
            total = total + as_float(chunk).square().sum()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return difference * (2 * gradient), None
