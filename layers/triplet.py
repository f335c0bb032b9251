"""Triplet losses over all pairs of a batch. B: images, M: references, D: width of the embedding."""

import torch
import torch.nn.functional as F
from ember_reid.layers.distances import euclidean_distances
from ember_reid.layers.memory import EMPTY, References, references_or_batch
from torch import Tensor

MININGS = ("hard", "weighted")


def _hardest(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    d_ap = distances.masked_fill(~positive, 0).amax(dim=1)
    d_an = distances.masked_fill(~negative, float("inf")).amin(dim=1)
    return d_ap, d_an


def _softmax_weighted(
    distances: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor]:
    """Every positive weighted by softmax(d), every negative by softmax(-d)."""
    lowest = torch.finfo(distances.dtype).min
    w_p = distances.masked_fill(~positive, lowest).softmax(dim=1)
    w_n = (-distances).masked_fill(~negative, lowest).softmax(dim=1)
    return (w_p * distances).sum(dim=1), (w_n * distances).sum(dim=1)


def triplet_loss(
    embeddings: Tensor,
    pids: Tensor,
    *,
    margin: float,
    mining: str = "hard",
    references: References | None = None,
) -> Tensor:
    """Triplet loss with one positive and one negative distance per anchor, the mean over the anchors.

    Args:
        embeddings: [B, D], compared by Euclidean distance as they are (normalize before, if wanted).
        pids: [B]; identities may have different numbers of images.
        margin: the hinge max(0, d_ap - d_an + margin); 0 means the soft margin log(1 + exp(d_ap - d_an)).
        mining: "hard": the farthest positive, the nearest negative (Hermans et al. 2017, eq. 5).
            "weighted": softmax-weighted means over all of them (AGW, Ye et al. 2021, eq. 5). There the anchor
            counts among its own positives, as in the authors' program.
        references: where positives and negatives are looked for, [M, D], each anchor among them; None is the batch itself.

    An anchor without another image of its identity, or without another identity, is left out; when all are,
    the loss is 0 and its gradient is 0.

    Raises:
        ValueError: unknown `mining`.
    """
    if mining not in MININGS:
        raise ValueError(f"mining is {mining!r}; choose one of {', '.join(MININGS)}")
    others = references_or_batch(references, embeddings, pids)
    distances = euclidean_distances(embeddings, others.embeddings)
    positive = pids[:, None] == others.pids
    negative = ~positive & (others.pids != EMPTY)
    mine = _hardest if mining == "hard" else _softmax_weighted
    d_ap, d_an = mine(distances, positive, negative)
    losses = F.softplus(d_ap - d_an) if margin == 0 else F.relu(d_ap - d_an + margin)
    qualified = (positive.sum(dim=1) > 1) & negative.any(dim=1)
    return losses.where(qualified, 0).sum() / qualified.sum().clamp(min=1)
