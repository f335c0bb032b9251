"""Losses and poolings are computed in float32, whatever automatic mixed precision chose around them; layers that a term
trains along follow its choice."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(tensor: Tensor) -> AbstractContextManager[None]:
    """A context in which the matrix products of `tensor`'s device are not cast to half precision."""
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind):  # "meta", tensors without numbers
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def autocast_like(tensor: Tensor) -> AbstractContextManager[None]:
    """A context in which layers work in the half precision that `tensor` came in, or as always where it did not."""
    if tensor.dtype not in (torch.float16, torch.bfloat16):
        return nullcontext()
    return torch.autocast(tensor.device.type, dtype=tensor.dtype)


def as_float(tensor: Tensor) -> Tensor:
    """`tensor` with at least 32 bits: half precision becomes float32, float32 and float64 stay."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
