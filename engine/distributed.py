"""Collective operations on tensors. W: processes, B: rows of each process."""

from typing import cast

import ignite.distributed as idist
import torch
from torch import Tensor


def all_gather(tensor: Tensor) -> Tensor:
    """Tensors of equal shape from all processes, concatenated along their first dimension."""
    return cast(Tensor, idist.all_gather(tensor))


def average(tensor: Tensor) -> None:
    """Replace a tensor by its mean over all processes."""
    # The sum may be a copy: ignite reduces on the device of the process.
    total = cast(Tensor, idist.all_reduce(tensor))
    tensor.copy_(total / idist.get_world_size())


def all_reduce_(tensor: Tensor) -> None:
    """Add a tensor over all processes, in place."""
    torch.distributed.all_reduce(tensor)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        ctx.num_rows = len(rows)
        return all_gather(rows.contiguous())

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        first = idist.get_rank() * ctx.num_rows
        return gradient[first : first + ctx.num_rows] * idist.get_world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows [B, ...] of all processes, [W * B, ...] in the order of their ranks; differentiable.

    For a loss that every process computes over all rows. Each row receives W times the gradient of
    the loss, because a distributed model averages gradients over the processes. The backward pass
    needs no communication.
    """
    return rows if idist.get_world_size() == 1 else _Gather.apply(rows)
