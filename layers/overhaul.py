"""Feature distillation after "a comprehensive overhaul" (Heo et al., ICCV 2019). N: images, C: channels.

Maps are compared in front of the ReLU that ends a stage. There the teacher's negative values say only "off", so
they are cut off at a margin, and a student that is below an "off" is left in peace.
"""

import math

import torch
from ember_reid.layers.precision import as_float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_PIECE = 2**18  # values that are squared at once: in float32 they stay in a core's cache
_RARE = 1e-3  # share of negative values below which their mean would be noise


def negative_means(scale: Tensor, shift: Tensor) -> Tensor:
    """The mean of the negative values of N(shift, scale^2), per channel: the margins of section 3.2.

    Args:
        scale, shift: weight and bias [C] of the batch norm whose output the values are.

    Returns:
        [C], all <= 0: shift - s * phi(shift / s) / Phi(-shift / s) with s = |scale|; where less than 0.1 % of the
        values are negative, -3 s. A channel with scale 0 is constant: min(shift, 0).
    """
    s, shift = scale.detach().double().abs(), shift.detach().double()
    z = shift / s.clamp(min=1e-12)
    share = 0.5 * torch.erfc(z / math.sqrt(2))  # Phi(-z)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    mean = torch.where(share > _RARE, shift - s * density / share.clamp(min=_RARE), -3 * s)
    return torch.where(s > 1e-12, mean, shift).clamp(max=0).to(scale.dtype)


def margin_relu(maps: Tensor, margins: Tensor) -> Tensor:
    """max(maps, margin) per channel: maps [N, C, H, W], margins [C]."""
    return torch.maximum(maps, margins.to(maps.dtype)[:, None, None])


def partial_distance(student: Tensor, target: Tensor) -> Tensor:
    """Sum of squared differences where the target is positive or the student is above it (eq. 4).

    Args:
        student, target: [N, C, H, W]; the target is a teacher's map after `margin_relu`, and gets no gradient.
    """
    return _PartialDistance.apply(student, target.detach())


class _PartialDistance(torch.autograd.Function):
    """With the gradient written down, 2 (student - target) where it counts, maps are gone through half as often.

    Differences of half precision are kept in it, as their gradient is rounded to it anyway; they are summed in float32.
    """

    @staticmethod
    def forward(ctx, student: Tensor, target: Tensor) -> Tensor:
        target = target.to(student.dtype)
        # A student below an "off" is lifted to it, and then as good. `threshold`, minus the target where that is not
        # negative and infinity elsewhere, is many times as fast as masks on a CPU.
        off = functional.threshold(-target, -torch.finfo(target.dtype).tiny, torch.inf).neg_()
        difference = torch.maximum(student, off).sub_(target)
        ctx.save_for_backward(difference)
        pieces = difference.tensor_split(1 + difference.numel() // _PIECE)
        return sum(as_float(piece).square().sum() for piece in pieces)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return difference * (2 * gradient), None
