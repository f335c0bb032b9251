"""Evaluation shared by the processes of torch.distributed: each takes every n-th block.

Letters: W processes, N items, K entries of a list.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

Chunk = TypeVar("Chunk")


@dataclass(frozen=True)
class Shard:
    """The part of the work of one process; the default is all of it."""

    rank: int = 0
    world_size: int = 1

    def chunks_for_rank(self, chunks: Iterable[Chunk]) -> list[Chunk]:
        """Every n-th chunk, so that long and short rows of a triangle of tiles are balanced."""
        return list(chunks)[self.rank :: self.world_size]


SINGLE_PROCESS = Shard()


def current_shard() -> Shard:
    """The part of this process, if there are others."""
    if dist.is_available() and dist.is_initialized():
        return Shard(dist.get_rank(), dist.get_world_size())
    return SINGLE_PROCESS


def sum_over_shards(counts: np.ndarray, shard: Shard) -> np.ndarray:
    """The sum of an int64 array over all processes; each filled its own entries, the rest is 0."""
    if shard.world_size == 1:
        return counts
    tensor = torch.from_numpy(counts).to(_device())
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def all_agree(condition: bool, shard: Shard) -> bool:
    """Whether a condition holds in every process; timings differ between processes."""
    votes = sum_over_shards(np.array([condition], np.int64), shard)
    return int(votes[0]) == shard.world_size


def merge_lists(
    items: torch.Tensor, bounds: torch.Tensor, shard: Shard
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge the lists [N, K] of all processes, sorted by (bound, position)."""
    if shard.world_size == 1:
        return items, bounds
    home, length = items.device, items.shape[1]
    gathered = []
    for part in (items, bounds):
        part = part.to(_device()).contiguous()
        gathered.append([torch.empty_like(part) for _ in range(shard.world_size)])
        dist.all_gather(gathered[-1], part)
    # [N, W K]
    items, order = torch.cat(gathered[0], dim=1).sort(dim=1, stable=True)
    bounds, by_bound = torch.cat(gathered[1], dim=1).gather(1, order).sort(dim=1, stable=True)
    items = items.gather(1, by_bound)
    return items[:, :length].contiguous().to(home), bounds[:, :length].contiguous().to(home)


def _device() -> torch.device:
    """The device on which the backend of torch.distributed exchanges tensors."""
    return torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
