"""Precision under automatic mixed precision (AMP).

Losses and poolings are always computed in float32. Layers that belong to a loss (adapters,
projections) use the precision that AMP chose for their input.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(tensor: Tensor) -> AbstractContextManager[None]:
    """A context that turns autocast off for the device of `tensor`."""
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
