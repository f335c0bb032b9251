"""Pairwise losses over the cosines of all pairs of a batch. B: images, D: width of the embedding."""

import torch.nn.functional as F
from torch import Tensor

from layers.distances import cosine_similarities

# Stands in for the logit of a pair that does not count: its exponential is 0 beside any other.
_EXCLUDED = -1e9


def _pair_loss(positive_logits: Tensor, negative_logits: Tensor, pids: Tensor) -> Tensor:
    """Mean over the anchors of softplus(logsumexp(positives) + logsumexp(negatives)); logits [B, B].

    An anchor without a positive (other than itself) or without a negative is left out.
    """
    same = pids[:, None] == pids
    positive = same.clone().fill_diagonal_(False)
    lse_p = positive_logits.masked_fill(~positive, _EXCLUDED).logsumexp(dim=1)
    lse_n = negative_logits.masked_fill(same, _EXCLUDED).logsumexp(dim=1)
    qualified = positive.any(dim=1) & (~same).any(dim=1)
    losses = F.softplus(lse_p + lse_n)
    return losses.where(qualified, 0).sum() / qualified.sum().clamp(min=1)


def circle_loss(embeddings: Tensor, pids: Tensor, *, margin: float, gamma: float) -> Tensor:
    """Circle loss with pair labels (Sun et al. 2020, eq. 6), averaged over the anchors.

    Args:
        embeddings: [B, D]; compared by cosine.
        pids: [B].
        margin: m; the optima are 1 + m and -m, the decision boundaries 1 - m and m.
        gamma: scale.
    """
    s = cosine_similarities(embeddings, embeddings)
    alpha_p = (1 + margin - s.detach()).clamp(min=0)
    alpha_n = (s.detach() + margin).clamp(min=0)
    return _pair_loss(-gamma * alpha_p * (s - 1 + margin), gamma * alpha_n * (s - margin), pids)


def cosface_loss(embeddings: Tensor, pids: Tensor, *, margin: float, gamma: float) -> Tensor:
    """CosFace between pairs: circle loss without its weights, one margin between positives and negatives.

    Args:
        embeddings: [B, D]; compared by cosine.
        pids: [B].
        margin: by how much a positive cosine has to exceed a negative one.
        gamma: scale.
    """
    s = cosine_similarities(embeddings, embeddings)
    return _pair_loss(-gamma * s, gamma * (s + margin), pids)
