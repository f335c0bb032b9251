"""Batch samplers: which records make up a batch, as a pure function of (seed, epoch).

Every sampler draws whole global batches (one per optimizer step) and gives each of `world_size` processes an
equal share of contiguous rows, so the identities of a step are the same on one process and on eight.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler


class GlobalBatchSampler(Sampler[list[int]]):
    """Shared by the training samplers: epochs, shares of a global batch, and continuing in mid-epoch.

    Subclasses draw `_plan(rng)`: int64 [num_steps, batch_size], one row per optimizer step.
    """

    def __init__(self, *, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; it must be in 0..{world_size - 1}")
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.num_steps = 0
        self.epoch = torch.zeros(
            1, dtype=torch.int64
        ).share_memory_()  # loader processes read it: see dataset.py
        self._skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next pass draws."""
        self.epoch.fill_(epoch)

    def skip(self, num_batches: int) -> None:
        """Leave out the first batches of the next pass only: a resumed run goes on in mid-epoch."""
        if not 0 <= num_batches <= len(self):
            raise ValueError(f"cannot skip {num_batches} batches of an epoch of {len(self)}")
        self._skip = num_batches

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, int(self.epoch)])
        shares = self._plan(rng).reshape(len(self), self.world_size, -1)  # [batches, ranks, share]
        first, self._skip = self._skip, 0
        yield from shares[
            first:, self.rank
        ].tolist()  # from a generator: loaders make two iterators and use one

    def _plan(self, rng: np.random.Generator) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} draws no batches")


class IdentityBatchSampler(GlobalBatchSampler):
    """Batches of P identities x K images, as Hermans et al. 2017 (arXiv 1703.07737) ask for batch-hard
    mining.

    An identity's images are shuffled and cut into groups of K (with fewer than K images: one group, drawn
    with replacement); the remainder rests for this epoch. A step takes one group each of P distinct
    identities, drawn in proportion to the groups they have left. (The strong baseline draws uniformly, which
    leaves the identities with many images to the end: on Market-1501 its last 5 batches of 64 show 32 people.)

    The strong baseline stops when fewer than P identities have groups left, so its epochs differ in length.
    Here an epoch has always the largest possible number of steps T, that with sum_i min(groups_i, T) >= P *
    T. Whatever is drawn, T steps can be filled as long as every step takes all identities whose groups would
    not fit into the remaining steps otherwise; the others are drawn at random.
    """

    def __init__(
        self,
        pids: Sequence[int],
        *,
        num_instances: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        once: bool = False,
    ) -> None:
        """`batch_size` is global: all processes together. With `once` an identity comes once an epoch, as in VKD.

        Raises ValueError.
        """
        super().__init__(batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        if num_instances < 1 or batch_size % num_instances:
            raise ValueError(
                f"the batch of {batch_size} (SOLVER.IMS_PER_BATCH) is not divisible by"
                f" {num_instances} images of an identity (DATALOADER.NUM_INSTANCES)"
            )
        self.num_instances = num_instances
        self.num_identities = batch_size // num_instances
        if self.num_identities % world_size:
            raise ValueError(
                f"the {self.num_identities} identities of a batch cannot be shared equally among {world_size}"
                f" processes; SOLVER.IMS_PER_BATCH must be a multiple of {num_instances * world_size}"
            )
        pids_array = np.asarray(pids, dtype=np.int64)
        self.indices_by_pid = [np.flatnonzero(pids_array == pid) for pid in np.unique(pids_array)]
        if len(self.indices_by_pid) < self.num_identities:
            raise ValueError(
                f"a batch needs {self.num_identities} identities ({batch_size} images / {num_instances} of"
                f" each), but the training data has {len(self.indices_by_pid)}; lower SOLVER.IMS_PER_BATCH to"
                f" at most {len(self.indices_by_pid) * num_instances} or raise DATALOADER.NUM_INSTANCES"
            )
        most = 1 if once else len(pids_array)
        self.num_groups = np.array(
            [min(max(len(i) // num_instances, 1), most) for i in self.indices_by_pid]
        )
        self.num_steps = most_steps(self.num_groups, self.num_identities)

    def _plan(self, rng: np.random.Generator) -> np.ndarray:
        groups = [self._groups(indices, rng) for indices in self.indices_by_pid]
        left = self.num_groups.copy()
        plan = np.empty((self.num_steps, self.num_identities, self.num_instances), dtype=np.int64)
        for step in range(self.num_steps):
            remaining = self.num_steps - step
            due = np.flatnonzero(left >= remaining)  # would lose a group if they were left out now
            if len(due) >= self.num_identities:
                chosen = rng.choice(due, self.num_identities, replace=False)
            else:
                free = np.flatnonzero((left > 0) & (left < remaining))
                shares = left[free] / left[free].sum()
                drawn = rng.choice(free, self.num_identities - len(due), replace=False, p=shares)
                chosen = rng.permutation(np.concatenate([due, drawn]))
            for place, identity in enumerate(chosen):
                plan[step, place] = groups[identity][self.num_groups[identity] - left[identity]]
            left[chosen] -= 1
        return plan.reshape(self.num_steps, self.batch_size)

    def _groups(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The K-image groups of one identity: int64 [groups, K]."""
        k = self.num_instances
        if len(indices) < k:
            return rng.choice(indices, (1, k), replace=True)
        return rng.permutation(indices)[: len(indices) // k * k].reshape(-1, k)


def most_steps(num_groups: np.ndarray, num_identities: int) -> int:
    """The largest T with sum_i min(num_groups_i, T) >= num_identities * T."""
    low, high = 0, int(num_groups.sum()) // num_identities
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(num_groups, middle).sum() >= num_identities * middle:
            low = middle
        else:
            high = middle - 1
    return low


class RandomBatchSampler(GlobalBatchSampler):
    """Every record at most once an epoch, in random order; the last incomplete batch is left out."""

    def __init__(
        self,
        num_records: int,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """`batch_size` is global: all processes together. Raises ValueError."""
        super().__init__(batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        if batch_size % world_size:
            raise ValueError(
                f"the batch of {batch_size} (SOLVER.IMS_PER_BATCH) cannot be shared equally among"
                f" {world_size} processes"
            )
        if num_records < batch_size:
            raise ValueError(
                f"the training data has {num_records} images, fewer than a batch of {batch_size}"
                " (SOLVER.IMS_PER_BATCH)"
            )
        self.num_records = num_records
        self.num_steps = num_records // batch_size

    def _plan(self, rng: np.random.Generator) -> np.ndarray:
        kept = self.num_steps * self.batch_size
        return rng.permutation(self.num_records)[:kept].reshape(self.num_steps, self.batch_size)


class TestBatchSampler(Sampler[list[int]]):
    """Every record exactly once over all ranks, in order; a rank's share is contiguous, the last batch may be
    short.
    """

    __test__ = False  # the name is not a pytest class

    def __init__(
        self, num_records: int, *, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        """`batch_size` is that of one process. Shares differ by at most one record."""
        if batch_size < 1:
            raise ValueError(
                f"the test batch must have at least one image, not {batch_size} (TEST.IMS_PER_BATCH)"
            )
        self.batch_size = batch_size
        self.first = num_records * rank // world_size
        self.last = num_records * (rank + 1) // world_size

    def __len__(self) -> int:
        return -(-(self.last - self.first) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(self.first, self.last, self.batch_size):
            yield list(range(start, min(start + self.batch_size, self.last)))
