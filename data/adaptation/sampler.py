"""Batches of labeled images and of unlabeled ones with their current pseudo labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ember_reid.data.records import NO_PID
from ember_reid.data.samplers import GlobalBatchSampler


@dataclass(frozen=True)
class UnlabeledRows:
    """The unlabeled images of a batch.

    Attributes:
        batch_size: their number in the global batch.
        num_instances: K, the images of a cluster.
        num_steps: batches per epoch; 0: so many that they contain as many images as there are.
        use_outliers: outliers are groups of one image; otherwise they are left out.
    """

    batch_size: int
    num_instances: int
    num_steps: int = 0
    use_outliers: bool = False


class AdaptationSampler(GlobalBatchSampler):
    """The first rows of each process are labeled images, the others unlabeled ones.

    Labeled images come from another sampler, one of its epochs after another. Unlabeled images
    come from groups: K images of a cluster, from different cameras where possible, or a single
    outlier. As in the programs of SpCL and Cluster Contrast, all groups are shuffled and cut into
    batches, incomplete batches are left out, and this is repeated until the epoch is complete.

    Plans depend on the labels of their epoch, so they are not computed ahead.

    Args:
        source: samples the labeled images of all processes; None without labeled images.
        pids, camids: of all records. Those with `NO_PID`, the last ones, are unlabeled; `set_pids`
            replaces their pids.
        rows: the unlabeled images of a batch.
    """

    def __init__(
        self,
        source: GlobalBatchSampler | None,
        pids: Sequence[int],
        camids: Sequence[int],
        rows: UnlabeledRows,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        batch_size, num_instances = rows.batch_size, rows.num_instances
        total = batch_size + (source.batch_size if source is not None else 0)
        super().__init__(batch_size=total, seed=seed, rank=rank, world_size=world_size)
        for name, size in (("labeled", total - batch_size), ("unlabeled", batch_size)):
            if size % (num_instances * world_size):
                raise ValueError(
                    f"the {size} {name} images of a batch cannot be divided into {world_size} "
                    f"process(es) with {num_instances} images of an identity "
                    "(DATALOADER.NUM_INSTANCES); change SOLVER.IMS_PER_BATCH"
                )
        self.source, self.rows = source, rows
        self.pids, self.camids = np.asarray(pids, np.int64), np.asarray(camids, np.int64)
        self.first = int(np.count_nonzero(self.pids != NO_PID))
        self.num_instances, self.num_unlabeled = num_instances, batch_size
        self.num_steps = rows.num_steps or max((len(pids) - self.first) // batch_size, 1)

    def set_pids(self, pids: np.ndarray) -> None:
        """Replace the labels of all records, int64 [records]; negative ones are outliers.

        Raises:
            ValueError: there are too few clusters for a batch; nothing is replaced.
        """
        groups = self._groups(pids)
        num_clusters = sum(len(group) > 1 for group in groups)
        num_images = sum(self.num_instances if len(group) > 1 else 1 for group in groups)
        if num_images < self.num_unlabeled:
            raise ValueError(
                f"the clustering found {num_clusters} clusters, and a batch of "
                f"{self.num_unlabeled} unlabeled images needs "
                f"{self.num_unlabeled // self.num_instances}: lower SOLVER.IMS_PER_BATCH, raise "
                "DATALOADER.NUM_INSTANCES, or change ADAPT.CLUSTER.RADIUS or "
                "ADAPT.CLUSTER.MIN_SAMPLES"
            )
        self.pids = pids

    def _planned(self, epoch: int) -> np.ndarray:
        return self._plan(epoch)

    def _plan(self, epoch: int) -> np.ndarray:
        # [steps, ranks, unlabeled images of a rank]
        shape = (self.num_steps, self.world_size, -1)
        parts = [self._plan_unlabeled(epoch).reshape(shape)]
        if self.source is not None:
            parts.insert(0, self._plan_labeled(self.source, epoch).reshape(shape))
        return np.concatenate(parts, axis=2).reshape(self.num_steps, self.batch_size)

    def _plan_labeled(self, source: GlobalBatchSampler, epoch: int) -> np.ndarray:
        """The next batches of the other sampler: int64 [num_steps, labeled images]."""
        steps = np.arange(self.num_steps) + (epoch - 1) * self.num_steps
        epochs, rows = np.divmod(steps, source.num_steps)
        plans = {number: source._plan(number + 1) for number in np.unique(epochs).tolist()}
        return np.stack([plans[e][r] for e, r in zip(epochs.tolist(), rows.tolist(), strict=True)])

    def _plan_unlabeled(self, epoch: int) -> np.ndarray:
        """Int64 [num_steps, unlabeled images]."""
        rng = np.random.default_rng([self.seed, epoch, 1])
        groups = self._groups(self.pids)
        batches: list[np.ndarray] = []
        while len(batches) < self.num_steps:
            batches += self._pass_over(groups, rng)
        return np.stack(batches[: self.num_steps])

    def _groups(self, pids: np.ndarray) -> list[np.ndarray]:
        """The records of each cluster, in the order of the labels, then each outlier alone."""
        labels = pids[self.first :]
        order = np.argsort(labels, kind="stable")
        order = order[np.searchsorted(labels[order], 0) :]
        _, starts = np.unique(labels[order], return_index=True)
        groups = np.split(order + self.first, starts[1:]) if len(order) else []
        if not self.rows.use_outliers:
            return groups
        outliers = np.flatnonzero(labels < 0) + self.first
        return groups + [np.array([index]) for index in outliers]

    def _pass_over(
        self, groups: list[np.ndarray], rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Complete batches of all groups in random order."""
        chosen = [self._choose(groups[number], rng) for number in rng.permutation(len(groups))]
        rows = np.concatenate(chosen)
        kept = len(rows) // self.num_unlabeled * self.num_unlabeled
        return iter(rows[:kept].reshape(-1, self.num_unlabeled))

    def _choose(self, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A random image, and others of the group, from other cameras if there are any."""
        if len(group) == 1:
            return group
        first = rng.choice(group)
        others = group[self.camids[group] != self.camids[first]]
        if not len(others):
            others = group[group != first]
        count = self.num_instances - 1
        rest = rng.choice(others, count, replace=len(others) < count)
        return np.concatenate(([first], rest))
