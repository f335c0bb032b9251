"""Margins on the logits of a cosine classifier. B: images, C: identities.

The model returns scale * cosine and does not see the labels; the loss applies the margin.
"""

import math

import torch
from ember_reid.layers.numerics import as_float
from torch import Tensor


def _arcface(cosines: Tensor, is_target: Tensor, margin: float) -> Tensor:
    """cos(theta + m) for the target class (Deng et al. 2019, eq. 3).

    Where theta + m exceeds pi, cos(theta) - m sin(m) is used instead.
    """
    sines = (1 - cosines.square()).clamp(min=1e-12).sqrt()
    moved = cosines * math.cos(margin) - sines * math.sin(margin)
    beyond = cosines <= -math.cos(margin)
    target = torch.where(beyond, cosines - margin * math.sin(margin), moved)
    return torch.where(is_target, target, cosines)


def _cosface(cosines: Tensor, is_target: Tensor, margin: float) -> Tensor:
    """cos(theta) - m for the target class (Wang et al. 2018, eq. 4)."""
    return torch.where(is_target, cosines - margin, cosines)


def _circle(cosines: Tensor, is_target: Tensor, margin: float) -> Tensor:
    """Circle loss with class labels (Sun et al. 2020, eq. 7).

    Cosines that are far from their optimum get a larger weight.
    """
    fixed = cosines.detach()
    target = (1 + margin - fixed).clamp(min=0) * (cosines - 1 + margin)
    other = (fixed + margin).clamp(min=0) * (cosines - margin)
    return torch.where(is_target, target, other)


MARGINS = {"arcface": _arcface, "cosface": _cosface, "circle": _circle}


def apply_margin(logits: Tensor, pids: Tensor, *, kind: str, scale: float, margin: float) -> Tensor:
    """Apply a margin to the logits, for the cross-entropy during training.

    Args:
        logits: [B, C], scale * cosine.
        pids: [B], class indices.
        kind: "none" (returns the logits unchanged), "arcface", "cosface" or "circle".
        scale: scale of the cosine classifier.
        margin: radians for arcface, a cosine for the others.

    Raises:
        ValueError: unknown `kind`.
    """
    if kind == "none":
        return logits
    if kind not in MARGINS:
        raise ValueError(f"margin kind is {kind!r}; choose one of none, {', '.join(MARGINS)}")
    logits = as_float(logits)
    is_target = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, pids[:, None], True)
    return scale * MARGINS[kind](logits / scale, is_target, margin)
