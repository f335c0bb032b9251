"""The processes of torch.distributed that share one evaluation: every process takes every n-th block.

Letters: W processes, N items, k neighbours.
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


def merge_nearest(indices: torch.Tensor, distances: torch.Tensor, farthest: torch.Tensor, shard: Shard):
    """One list a row out of each process' [N, k], by (distance, position), and the largest of the maxima."""
    if shard.size == 1:
        return indices, distances, farthest
    home, k = indices.device, indices.shape[1]
    indices, distances, farthest = (t.to(_device()).contiguous() for t in (indices, distances, farthest))
    all_indices = [torch.empty_like(indices) for _ in range(shard.size)]
    all_distances = [torch.empty_like(distances) for _ in range(shard.size)]
    dist.all_gather(all_indices, indices)
    dist.all_gather(all_distances, distances)
    dist.all_reduce(farthest, dist.ReduceOp.MAX)
    indices, order = torch.cat(all_indices, dim=1).sort(dim=1, stable=True)  # [N, W k]
    distances, by_distance = torch.cat(all_distances, dim=1).gather(1, order).sort(dim=1, stable=True)
    indices = indices.gather(1, by_distance)
    return indices[:, :k].contiguous().to(home), distances[:, :k].contiguous().to(home), farthest.to(home)


def _device() -> torch.device:
    """Where the processes' backend can exchange tensors."""
    return torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
