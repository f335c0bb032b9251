"""The processes of torch.distributed that share one evaluation: every process takes every n-th block.

Letters: W processes, N items, K entries of a list.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist


class Shard(NamedTuple):
    """Which part of the blocks this process takes; the default takes all."""

    index: int = 0
    size: int = 1

    def mine(self, spans) -> list:
        """Every n-th of the blocks: long and short rows of a triangle of tiles even out."""
        return list(spans)[self.index :: self.size]


ALONE = Shard()


def current_shard(distributed: bool) -> Shard:
    """This process' part when the work is to be shared and there are others to share it with."""
    if distributed and dist.is_available() and dist.is_initialized():
        return Shard(dist.get_rank(), dist.get_world_size())
    return ALONE


def sum_over_shards(counts: np.ndarray, shard: Shard) -> np.ndarray:
    """Adds an int64 array over all processes, where each filled its own entries and left the others 0."""
    if shard.size == 1:
        return counts
    tensor = torch.from_numpy(counts).to(_device())
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def all_agree(answer: bool, shard: Shard) -> bool:
    """Whether every process answers yes: what each measured for itself may differ."""
    return int(sum_over_shards(np.array([answer], np.int64), shard)[0]) == shard.size


def merge_lists(
    items: torch.Tensor, bounds: torch.Tensor, shard: Shard
) -> tuple[torch.Tensor, torch.Tensor]:
    """One list a row out of each process' [N, K], by (bound, position)."""
    if shard.size == 1:
        return items, bounds
    home, length = items.device, items.shape[1]
    gathered = []
    for part in (items, bounds):
        part = part.to(_device()).contiguous()
        gathered.append([torch.empty_like(part) for _ in range(shard.size)])
        dist.all_gather(gathered[-1], part)
    items, order = torch.cat(gathered[0], dim=1).sort(dim=1, stable=True)  # [N, W K]
    bounds, by_bound = torch.cat(gathered[1], dim=1).gather(1, order).sort(dim=1, stable=True)
    items = items.gather(1, by_bound)
    return items[:, :length].contiguous().to(home), bounds[:, :length].contiguous().to(home)


def _device() -> torch.device:
    """Where the processes' backend can exchange tensors."""
    return torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
