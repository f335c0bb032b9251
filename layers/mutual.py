"""Losses of Mutual Mean-Teaching (Ge et al., ICLR 2020). B: images, D: dimension, C: classes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy with a teacher's probabilities (equation 8).

    Args:
        logits, teacher_logits: [B, C]; the teacher receives no gradient.

    Returns:
        A scalar, the mean over the batch.
    """
    targets = F.softmax(teacher_logits.detach(), dim=1)
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def soft_triplet_loss(features: Tensor, pids: Tensor, teacher: Tensor | None = None) -> Tensor:
    """Softmax triplet loss with hard labels, or with a teacher's probabilities (equations 5 and 9).

    The probability that an anchor's negative is farther away than its positive is
    exp(d_an) / (exp(d_ap) + exp(d_an)), with Euclidean distances to the farthest positive and the
    nearest negative of `features`. The teacher's probability is that of the same images.

    Args:
        features: [B, D].
        pids: int64 [B]; an anchor without negatives is compared with the farthest image.
        teacher: the teacher's features [B, D], which receive no gradient; None: the probability 1.

    Returns:
        A scalar, the mean over the batch.
    """
    same = pids[:, None] == pids
    distances = _distances(features)
    positives = distances.masked_fill(~same, -torch.inf).argmax(dim=1)
    negatives = distances.masked_fill(same, torch.inf).argmin(dim=1)
    pairs = torch.stack((positives, negatives), dim=1)
    scores = F.log_softmax(distances.gather(1, pairs), dim=1)
    if teacher is None:
        return -scores[:, 1].mean()
    targets = F.softmax(_distances(teacher.detach()).gather(1, pairs), dim=1)
    return -(targets * scores).sum(dim=1).mean()


def _distances(features: Tensor) -> Tensor:
    """Euclidean distances [B, B], with a finite gradient where they are 0."""
    squares = features.square().sum(dim=1)
    squared = squares[:, None] + squares - 2 * features @ features.T
    return squared.clamp(min=1e-12).sqrt()
