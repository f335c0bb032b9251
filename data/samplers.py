"""Batch samplers, which choose the records of a batch as a pure function of (seed, epoch).

Every training sampler draws whole global batches (one per optimizer step). Each of `world_size`
processes receives an equal number of contiguous rows. The identities of a step are therefore the
same for any number of processes.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain

import numpy as np
import torch
from torch.utils.data import Sampler


class _EpochPlan:
    """The batches of an epoch, computed in a thread.

    Args:
        plan: epoch -> int64 [num_steps, batch_size].
    """

    def __init__(self, plan: Callable[[int], np.ndarray], epoch: int) -> None:
        self._plan, self._epoch = plan, epoch
        self._result: np.ndarray | None = None
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def result_for(self, epoch: int) -> np.ndarray | None:
        """Wait for the thread; return the plan, or None if it is another epoch's or failed."""
        self._thread.join()
        return self._result if epoch == self._epoch else None

    def _run(self) -> None:
        # Planning the epoch again without a thread raises the same error.
        with suppress(Exception):
            self._result = self._plan(self._epoch)


class GlobalBatchSampler(Sampler[list[int]], ABC):
    """Base class of the training samplers: epochs, the rows of a rank, resuming within an epoch.

    While an epoch is trained, a thread plans the next one. Plans depend on the epoch only, so the
    batches are the same without it.

    Subclasses set `num_steps` and implement `_plan(epoch)`.

    Attributes:
        num_steps: batches per epoch.
        epoch: int64 [1] in shared memory, because loader processes read it; see dataset.py.
    """

    def __init__(self, *, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; it must be in 0..{world_size - 1}")
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.num_steps = 0
        self.epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._skip = 0
        self._next_plan: _EpochPlan | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass."""
        self.epoch.fill_(epoch)

    def skip(self, num_batches: int) -> None:
        """Skip the first batches of the next pass only, to resume within an epoch."""
        if not 0 <= num_batches <= len(self):
            raise ValueError(f"cannot skip {num_batches} batches of an epoch of {len(self)}")
        self._skip = num_batches

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[list[int]]:
        # Planned at the first batch, where `skip` is consumed: loaders with processes create two
        # iterators and use one.
        return chain.from_iterable(plan() for plan in (self._batches,))

    def _batches(self) -> list[list[int]]:
        """The batches of this rank in the current epoch, without skipped ones."""
        # [batches, ranks, records of a rank]
        rows = self._planned(int(self.epoch)).reshape(len(self), self.world_size, -1)
        first, self._skip = self._skip, 0
        return rows[first:, self.rank].tolist()

    def _planned(self, epoch: int) -> np.ndarray:
        """The plan of an epoch; starts to plan the next one."""
        # Only one thread plans at a time, because plans may share what they have computed.
        plan = None if self._next_plan is None else self._next_plan.result_for(epoch)
        if plan is None:
            plan = self._plan(epoch)
        self._next_plan = _EpochPlan(self._plan, epoch + 1)
        return plan

    @abstractmethod
    def _plan(self, epoch: int) -> np.ndarray:
        """The record indices of all batches of an epoch: int64 [num_steps, batch_size]."""


class PKSampler(GlobalBatchSampler):
    """Base class of samplers of P identities x K images.

    Attributes:
        num_instances: K.
        num_identities: P of the global batch.
        num_records: records of the dataset.
        indices_by_pid: the record indices of each identity, in sorted order of pids.
        num_groups: int64 [identities], groups of K images that `_groups` returns.
        camids, domains: int64 [records], or empty.
    """

    def __init__(
        self,
        pids: Sequence[int],
        camids: Sequence[int] = (),
        *,
        domains: Sequence[int] = (),
        num_instances: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Group the records by identity and count the batches of an epoch.

        Args:
            pids: the identity of each record.
            camids: the camera of each record, for samplers that choose by camera.
            domains: the dataset of each record, for samplers that choose by dataset.
            num_instances: K.
            batch_size: P * K of the global batch, the sum over all processes.
            seed: of all random choices.
            rank: this process.
            world_size: the number of processes.

        Raises:
            ValueError: if P x K does not fit the batch size, the processes or the data.
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
                f"the {self.num_identities} identities of a batch cannot be divided equally among"
                f" {world_size} processes; SOLVER.IMS_PER_BATCH must be a multiple of"
                f" {num_instances * world_size}"
            )
        pids_array = np.asarray(pids, dtype=np.int64)
        order = np.argsort(pids_array, kind="stable")
        _, starts = np.unique(pids_array[order], return_index=True)
        self.indices_by_pid = np.split(order, starts[1:]) if len(order) else []
        available = len(self.indices_by_pid)
        if available < self.num_identities:
            raise ValueError(
                f"a batch needs {self.num_identities} identities ({batch_size} images /"
                f" {num_instances} of each), but the training data has {available}; lower"
                f" SOLVER.IMS_PER_BATCH to at most {available * num_instances} or raise"
                " DATALOADER.NUM_INSTANCES"
            )
        self.num_records = len(pids)
        self.camids = np.asarray(camids, dtype=np.int64)
        self.domains = np.asarray(domains, dtype=np.int64)
        sizes = np.array([len(indices) for indices in self.indices_by_pid])
        self.num_groups = np.maximum(sizes // num_instances, 1)
        self.num_steps = self._count_steps()

    @abstractmethod
    def _count_steps(self) -> int:
        """The number of batches per epoch."""

    def _groups(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Shuffle the images of one identity and cut them into groups of K: int64 [groups, K].

        The remainder is left out. An identity with fewer than K images has one group, drawn with
        replacement.
        """
        k = self.num_instances
        if len(indices) < k:
            return rng.choice(indices, (1, k), replace=True)
        return rng.permutation(indices)[: len(indices) // k * k].reshape(-1, k)


class IdentityBatchSampler(PKSampler):
    """Batches for batch-hard mining (Hermans et al. 2017, arXiv 1703.07737); epochs of one pass.

    Images are cut into groups of K, see `_groups`. A step takes one group each of P distinct
    identities, drawn in proportion to the groups they have left. (The strong baseline draws
    uniformly, so identities with many images remain at the end: on Market-1501 its last 5 batches
    of 64 show 32 people.)

    The strong baseline stops when fewer than P identities have groups left, so its epochs differ
    in length. Here an epoch always has the largest possible number of steps T, which is the
    largest T with sum_i min(groups_i, T) >= P * T. To fill T steps, every step takes all
    identities that have as many groups left as there are steps left; the others are drawn.
    """

    def _count_steps(self) -> int:
        return most_steps(self.num_groups, self.num_identities)

    def _plan(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        groups = [self._groups(indices, rng) for indices in self.indices_by_pid]
        left = self.num_groups.copy()
        plan = np.empty((self.num_steps, self.num_identities, self.num_instances), dtype=np.int64)
        for step in range(self.num_steps):
            steps_left = self.num_steps - step
            # Identities that would lose a group if this step left them out.
            due = np.flatnonzero(left >= steps_left)
            if len(due) >= self.num_identities:
                chosen = rng.choice(due, self.num_identities, replace=False)
            else:
                free = np.flatnonzero((left > 0) & (left < steps_left))
                weights = left[free] / left[free].sum()
                drawn = rng.choice(free, self.num_identities - len(due), replace=False, p=weights)
                chosen = rng.permutation(np.concatenate([due, drawn]))
            for place, identity in enumerate(chosen):
                plan[step, place] = groups[identity][self.num_groups[identity] - left[identity]]
            left[chosen] -= 1
        return plan.reshape(self.num_steps, self.batch_size)


class IdentityOnceSampler(IdentityBatchSampler):
    """Every identity has one group per epoch, as in VKD (Porrello et al. 2020)."""

    def _count_steps(self) -> int:
        self.num_groups = np.ones_like(self.num_groups)
        return super()._count_steps()


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
    """Every record at most once per epoch, in random order, without an incomplete batch."""

    def __init__(
        self,
        num_records: int,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """`batch_size` is global: the sum over all processes. Raises ValueError."""
        super().__init__(batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        if batch_size % world_size:
            raise ValueError(
                f"the batch of {batch_size} (SOLVER.IMS_PER_BATCH) cannot be divided equally among"
                f" {world_size} processes"
            )
        self.num_records = num_records
        self.num_steps = count_full_batches(num_records, batch_size)

    def _plan(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        kept = self.num_steps * self.batch_size
        return rng.permutation(self.num_records)[:kept].reshape(self.num_steps, self.batch_size)


def count_full_batches(num_records: int, batch_size: int) -> int:
    """floor(num_records / batch_size). Raises ValueError if that is 0."""
    if num_records < batch_size:
        raise ValueError(
            f"the training data has {num_records} images, fewer than a batch of {batch_size}"
            " (SOLVER.IMS_PER_BATCH)"
        )
    return num_records // batch_size


def split_batches(
    num_records: int, *, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """Batches for a test: over all ranks every record exactly once, in order.

    The records of a rank are contiguous and their numbers differ by at most one; the last batch of
    a rank may be smaller.

    Args:
        batch_size: images of a batch of one process.

    Raises:
        ValueError: `batch_size` below 1.
    """
    if batch_size < 1:
        raise ValueError(
            f"the test batch must have at least one image, not {batch_size} (TEST.IMS_PER_BATCH)"
        )
    first, last = num_records * rank // world_size, num_records * (rank + 1) // world_size
    starts = range(first, last, batch_size)
    return [list(range(start, min(start + batch_size, last))) for start in starts]
