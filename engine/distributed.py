"""Tensors across the processes of a run. W: processes, B: rows of each."""

import ignite.distributed as idist
import torch
from torch import Tensor


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        ctx.num_rows = len(rows)
        return idist.all_gather(rows.contiguous())

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        first = idist.get_rank() * ctx.num_rows
        return gradient[first : first + ctx.num_rows] * idist.get_world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows [B, ...] of all processes, [W * B, ...] in the order of their ranks, through which gradients flow back.

    For a loss that every process computes of all rows: each has the same value then, and the gradient that reaches a row is W
    times that of the loss, because a distributed model averages gradients over the processes. Nothing is sent backward.
    """
    return rows if idist.get_world_size() == 1 else _Gather.apply(rows)
