"""Losses over the cosines of all pairs. B: images, M: references, D: dimension of the embedding."""

import torch
import torch.nn.functional as F
from ember_reid.layers.memory import EMPTY, References, references_or_batch
from ember_reid.layers.numerics import cosine_similarities
from torch import Tensor

# The logit of excluded pairs; its exponential is 0 compared with any other.
_EXCLUDED = -1e9


def _pair_loss(
    positive_logits: Tensor, negative_logits: Tensor, pids: Tensor, others: References
) -> Tensor:
    """Mean over anchors of softplus(logsumexp(positives) + logsumexp(negatives)); logits [B, M].

    Anchors without a positive (other than themselves) or without a negative are left out.
    """
    same = pids[:, None] == others.pids
    positive = same & (torch.arange(len(others.pids), device=pids.device) != others.own[:, None])
    negative = ~same & (others.pids != EMPTY)
    lse_p = positive_logits.masked_fill(~positive, _EXCLUDED).logsumexp(dim=1)
    lse_n = negative_logits.masked_fill(~negative, _EXCLUDED).logsumexp(dim=1)
    qualified = positive.any(dim=1) & negative.any(dim=1)
    losses = F.softplus(lse_p + lse_n)
    return losses.where(qualified, 0).sum() / qualified.sum().clamp(min=1)


def circle_loss(
    embeddings: Tensor,
    pids: Tensor,
    *,
    margin: float,
    gamma: float,
    references: References | None = None,
) -> Tensor:
    """Circle loss with pair labels (Sun et al. 2020, eq. 6), averaged over the anchors.

    Args:
        embeddings: [B, D].
        pids: [B].
        margin: m; the optima are 1 + m and -m, the decision boundaries 1 - m and m.
        gamma: scale of the logits.
        references: positives and negatives are taken from here; None means from the batch itself.
    """
    others = references_or_batch(references, embeddings, pids)
    s = cosine_similarities(embeddings, others.embeddings)
    alpha_p = (1 + margin - s.detach()).clamp(min=0)
    alpha_n = (s.detach() + margin).clamp(min=0)
    return _pair_loss(
        -gamma * alpha_p * (s - 1 + margin), gamma * alpha_n * (s - margin), pids, others
    )


def cosface_loss(
    embeddings: Tensor,
    pids: Tensor,
    *,
    margin: float,
    gamma: float,
    references: References | None = None,
) -> Tensor:
    """Pairwise CosFace: circle loss with one margin and without the weights of the pairs.

    Args:
        embeddings: [B, D].
        pids: [B].
        margin: required difference between the cosines of positives and negatives.
        gamma: scale of the logits.
        references: positives and negatives are taken from here; None means from the batch itself.
    """
    others = references_or_batch(references, embeddings, pids)
    s = cosine_similarities(embeddings, others.embeddings)
    return _pair_loss(-gamma * s, gamma * (s + margin), pids, others)
