"""Compare proposed identities with the true ones."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ember_reid.evaluate import OUTLIER, PairScores, pair_scores
from ember_reid.tools.common.inputs import ImageFile


@dataclass(frozen=True)
class LabelScores:
    """How good proposed identities are, and how many corrections they need.

    Attributes:
        pairs: precision, recall and F1 over pairs of images.
        num_merges: identities that have to be merged into another one.
        num_moved: images that are in the identity of somebody else.
        num_without: images without a proposed identity.
    """

    pairs: PairScores
    num_merges: int
    num_moved: int
    num_without: int

    def describe(self) -> str:
        """One line."""
        return (
            f"pairs of images: precision {self.pairs.precision:.1%}, recall "
            f"{self.pairs.recall:.1%}, F1 {self.pairs.f1:.1%}; corrections: {self.num_merges} "
            f"merges, {self.num_moved} images of others, {self.num_without} images without identity"
        )


def check_identities(images: Sequence[ImageFile]) -> None:
    """Raise ValueError if an image has no true identity."""
    num_without = sum(not image.pid for image in images)
    if num_without:
        raise ValueError(
            "--score needs the true identity of every image: a column pid, or --ids; "
            f"{num_without} of {len(images)} images have none"
        )


def score_proposal(pids: Sequence[str], labels: np.ndarray) -> LabelScores:
    """Compare labels with true identities.

    An identity belongs to the individual that most of its images show; of several, the first.

    Args:
        pids: the true identity of each image.
        labels: int64 [N], proposed identities, or `OUTLIER`.
    """
    numbers = {pid: number for number, pid in enumerate(dict.fromkeys(pids))}
    true = np.array([numbers[pid] for pid in pids], np.int64)
    owners = []
    num_moved = 0
    for label in range(int(labels.max(initial=OUTLIER)) + 1):
        counts = Counter(true[labels == label].tolist())
        owner, count = counts.most_common(1)[0]
        owners.append(owner)
        num_moved += counts.total() - count
    return LabelScores(
        pairs=pair_scores(true, labels),
        num_merges=len(owners) - len(set(owners)),
        num_moved=num_moved,
        num_without=int((labels == OUTLIER).sum()),
    )
