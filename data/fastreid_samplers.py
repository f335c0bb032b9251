"""Samplers with the batch composition and the epoch length of FastReID.

FastReID draws from an endless stream of identities; floor(N / B) batches form an epoch: 202 on
Market-1501 with batches of 64. The stream consists of rounds. An epoch ends where its last batch
ends, usually within a round, and the next epoch continues there. Here round r depends on (seed, r)
only, so the batches of an epoch are still a function of (seed, epoch).
"""

import numpy as np
from ember_reid.data.round_samplers import RoundSampler
from ember_reid.data.samplers import PKSampler, count_full_batches


class IdentityStreamSampler(PKSampler):
    """FastReID's NaiveIdentitySampler (commits 64861ea of July 2020 to c9bc3ce).

    In a round the images of every identity are cut into groups of K. A batch takes the next group
    of each of P identities, drawn uniformly from those that have groups left. The round ends when
    fewer than P identities have groups left.

    Departure: FastReID with several processes may repeat an identity in the global batch; here the
    P identities of a global batch are distinct.
    """

    def _count_steps(self) -> int:
        # Batches in the stream before each round; grows as epochs are drawn.
        self._round_starts = [0]
        return count_full_batches(self.num_records, self.batch_size)

    def _plan(self, epoch: int) -> np.ndarray:
        first, last = epoch * self.num_steps, (epoch + 1) * self.num_steps
        while self._round_starts[-1] < last:
            num_batches = len(self._round_identities(len(self._round_starts) - 1))
            self._round_starts.append(self._round_starts[-1] + num_batches)
        parts = []
        for number in range(len(self._round_starts) - 1):
            start, end = self._round_starts[number], self._round_starts[number + 1]
            if start < last and end > first:
                parts.append(self._round(number)[max(first - start, 0) : last - start])
        return np.concatenate(parts)

    def _round_identities(self, number: int) -> np.ndarray:
        """The identities of each batch of a round: int64 [batches, P]."""
        rng = np.random.default_rng([self.seed, number, 0])
        left = self.num_groups.copy()
        batches = []
        while len(available := np.flatnonzero(left)) >= self.num_identities:
            batches.append(rng.choice(available, self.num_identities, replace=False))
            left[batches[-1]] -= 1
        return np.stack(batches)

    def _round(self, number: int) -> np.ndarray:
        """The record indices of the batches of a round: int64 [batches, P * K]."""
        rng = np.random.default_rng([self.seed, number, 1])
        groups = [iter(self._groups(indices, rng)) for indices in self.indices_by_pid]
        identities = self._round_identities(number)
        return np.stack([np.concatenate([next(groups[i]) for i in row]) for row in identities])


class CameraBalancedSampler(RoundSampler):
    """FastReID's RandomIdentitySampler of May 2020 (commit 35076d5; later BalancedIdentitySampler).

    Each identity of a batch contributes a random image and K - 1 images of other cameras; other
    images if all are of one camera; or the same image again if there is only one. The K - 1 images
    are drawn with replacement if fewer than K qualify.
    """

    def _plan(self, epoch: int) -> np.ndarray:
        return self._draw_rounds(epoch, self.indices_by_pid, self.num_identities, seeds=())

    def _draw_images(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """K images of one identity, from different cameras than the first where possible."""
        first = rng.choice(indices)
        others = indices[self.camids[indices] != self.camids[first]]
        if not len(others):
            others = indices[indices != first]
        if not len(others):
            others = indices
        few = len(others) < self.num_instances
        drawn = rng.choice(others, self.num_instances - 1, replace=few)
        return np.concatenate([[first], drawn])
