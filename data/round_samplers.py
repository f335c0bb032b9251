"""Samplers that draw identities in rounds; one of them is balanced over datasets and cameras."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from ember_reid.data.samplers import PKSampler, count_full_batches


class RoundSampler(PKSampler):
    """Base class of samplers that draw identities uniformly, regardless of their images.

    A round is a random order of all identities, cut into groups; the remainder is dropped. Rounds
    follow each other without end. floor(N / B) batches form an epoch; the next one continues within
    the round. Round r depends on (seed, r) only, so the batches are a function of (seed, epoch).
    """

    def _count_steps(self) -> int:
        return count_full_batches(self.num_records, self.batch_size)

    def _draw_rounds(
        self,
        epoch: int,
        identities: Sequence[np.ndarray],
        group_size: int,
        *,
        seeds: tuple[int, ...],
    ) -> np.ndarray:
        """The images of one group of identities per batch.

        Args:
            epoch: the epoch.
            identities: the record indices of each identity.
            group_size: identities of a group.
            seeds: of the rounds, after (seed, round).

        Returns:
            int64 [num_steps, group_size * K].
        """
        groups_per_round = len(identities) // group_size
        first, last = epoch * self.num_steps, (epoch + 1) * self.num_steps
        rounds = range(first // groups_per_round, -(-last // groups_per_round))
        groups = []
        for number in rounds:
            rng = np.random.default_rng([self.seed, number, *seeds])
            order = rng.permutation(len(identities))[: groups_per_round * group_size]
            images = [self._draw_images(identities[identity], rng) for identity in order]
            groups.append(np.concatenate(images).reshape(groups_per_round, -1))
        skipped = first - rounds.start * groups_per_round
        return np.concatenate(groups)[skipped : skipped + self.num_steps]

    @abstractmethod
    def _draw_images(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """K images of one identity: int64 [K]."""


class DomainBalancedSampler(RoundSampler):
    """P identities, divided equally over the datasets; their images alternate between cameras.

    Every dataset has rounds of its own, so that small datasets are repeated more often. The
    identities of a batch are from each dataset in turn: the parts of a batch for several processes
    and for gradient accumulation are balanced as well, where their sizes allow it.

    Within an identity, the images of each camera are in random order. One image of each camera is
    taken, then the second one of each camera, and so on, up to K images. If there are fewer than K
    images, the sequence is repeated.

    Attributes:
        identities_by_domain: for each dataset, the record indices of each identity.
        num_per_domain: identities of each dataset in a batch.
    """

    def _count_steps(self) -> int:
        by_domain: defaultdict[int, list[np.ndarray]] = defaultdict(list)
        for indices in self.indices_by_pid:
            by_domain[self.domains[indices[0]]].append(indices)
        self.identities_by_domain = [by_domain[domain] for domain in sorted(by_domain)]
        num_domains = len(by_domain)
        self.num_per_domain = self.num_identities // num_domains
        if self.num_identities % num_domains:
            raise ValueError(
                f"the {self.num_identities} identities of a batch cannot be divided equally over "
                f"{num_domains} training datasets; SOLVER.IMS_PER_BATCH must be a multiple of "
                f"{self.num_instances * num_domains}"
            )
        smallest = min(map(len, self.identities_by_domain))
        if smallest < self.num_per_domain:
            raise ValueError(
                f"a batch needs {self.num_per_domain} identities of each training dataset, but one "
                f"has only {smallest}; lower SOLVER.IMS_PER_BATCH to at most "
                f"{smallest * num_domains * self.num_instances} or raise DATALOADER.NUM_INSTANCES"
            )
        return super()._count_steps()

    def _plan(self, epoch: int) -> np.ndarray:
        parts = [
            self._draw_rounds(epoch, identities, self.num_per_domain, seeds=(domain,)).reshape(
                self.num_steps, self.num_per_domain, 1, self.num_instances
            )
            for domain, identities in enumerate(self.identities_by_domain)
        ]
        # [num_steps, P / D, D, K]
        return np.concatenate(parts, axis=2).reshape(self.num_steps, self.batch_size)

    def _draw_images(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        shuffled = rng.permutation(indices)
        turns = count_earlier(self.camids[shuffled])
        return np.resize(shuffled[turns.argsort(kind="stable")], self.num_instances)


def count_earlier(values: np.ndarray) -> np.ndarray:
    """How often each value occurred before: [3, 5, 3, 3] -> [0, 0, 1, 2]."""
    order = values.argsort(kind="stable")
    ordered = values[order]
    is_first = np.ones(len(values), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    starts = np.maximum.accumulate(np.where(is_first, np.arange(len(values)), 0))
    counts = np.empty(len(values), dtype=np.int64)
    counts[order] = np.arange(len(values)) - starts
    return counts
