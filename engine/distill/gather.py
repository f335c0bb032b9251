"""Rows of all processes, for terms over pairs of images."""

from collections.abc import Callable

import ignite.distributed as idist
import torch
from torch import Tensor


def over_all_ranks(term: Callable[[Tensor, Tensor], Tensor], student: Tensor, teacher: Tensor) -> Tensor:
    """A term over pairs of rows, with the value and the gradients that one process with the whole batch would have.

    Each process computes it for the rows of all, of which only its own have a gradient. Gradients are averaged
    over the processes afterwards, where they ought to be added, so they are multiplied by their number.
    """
    num_ranks = idist.get_world_size()
    if num_ranks == 1:
        return term(student, teacher)
    value = term(_gather(student), _gather(teacher))
    return value * num_ranks - (value * (num_ranks - 1)).detach()


def _gather(rows: Tensor) -> Tensor:
    """[B, D] of each rank -> [ranks * B, D]; the part of this rank keeps its graph. All ranks hold equally many rows."""
    parts = [torch.empty_like(rows) for _ in range(idist.get_world_size())]
    torch.distributed.all_gather(parts, rows.detach().contiguous())
    parts[idist.get_rank()] = rows
    return torch.cat(parts)
