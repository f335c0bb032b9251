"""Triplet losses. B: images, M: references, D: dimension of the embedding."""

import torch
import torch.nn.functional as F
from ember_reid.layers.memory import EMPTY, References
from ember_reid.layers.numerics import euclidean_distances
from torch import Tensor

MININGS = ("hard", "weighted")
FORMS = ("exact", "published")


def _hardest(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    d_ap = distances.masked_fill(~positive, 0).amax(dim=1)
    d_an = distances.masked_fill(~negative, float("inf")).amin(dim=1)
    return d_ap, d_an


def _softmax_weighted(
    distances: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor]:
    """Means over positives weighted by softmax(d), and over negatives weighted by softmax(-d)."""
    lowest = torch.finfo(distances.dtype).min
    w_p = distances.masked_fill(~positive, lowest).softmax(dim=1)
    w_n = (-distances).masked_fill(~negative, lowest).softmax(dim=1)
    return (w_p * distances).sum(dim=1), (w_n * distances).sum(dim=1)


def _published_weighted(
    distances: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor]:
    """`_softmax_weighted` as FastReID computes it (modeling/losses/triplet_loss.py:13-18).

    The maximum is taken over the masked values, whose zeros count, and 1e-6 is added to the
    normalizer.
    """

    def weighted_mean(logits: Tensor, mask: Tensor) -> Tensor:
        weights = (logits - (logits * mask).amax(dim=1, keepdim=True)).exp() * mask
        weights = weights / (weights.sum(dim=1, keepdim=True) + 1e-6)
        return (weights * distances).sum(dim=1)

    return weighted_mean(distances, positive), weighted_mean(-distances, negative)


def weighted_distances(
    distances: Tensor, positive: Tensor, negative: Tensor, *, form: str
) -> tuple[Tensor, Tensor]:
    """Softmax-weighted mean distances of each anchor to its positives and to its negatives.

    Args:
        distances: [B, M].
        positive, negative: bool [B, M].
        form: see `triplet_loss`.

    Returns:
        d_ap [B] and d_an [B].
    """
    weighted = _softmax_weighted if form == "exact" else _published_weighted
    return weighted(distances, positive, negative)


def triplet_loss(
    embeddings: Tensor,
    pids: Tensor,
    *,
    margin: float,
    mining: str = "hard",
    form: str = "exact",
    references: References | None = None,
) -> Tensor:
    """Triplet loss with one positive and one negative distance per anchor, averaged over anchors.

    Anchors without another image of their identity, or without another identity, are left out. If
    all anchors are left out, the loss and its gradient are 0.

    Args:
        embeddings: [B, D], compared by Euclidean distance; they are not normalized here.
        pids: [B]; identities may have different numbers of images.
        margin: of the hinge max(0, d_ap - d_an + margin); 0 selects the soft margin
            log(1 + exp(d_ap - d_an)).
        mining: "hard": the farthest positive and the nearest negative (Hermans et al. 2017, eq. 5).
            "weighted": softmax-weighted means over all positives and negatives (AGW, Ye et al.
            2021, eq. 5). The anchor is one of its own positives, as in the authors' program.
        form: of "weighted". "exact": a softmax. "published": FastReID's computation, in which the
            negative distance approaches 0 as all negatives become farther than about 14.
        references: positives and negatives are taken from here, and must include the anchors; None
            means from the batch itself.

    Raises:
        ValueError: unknown `mining` or `form`.
    """
    if mining not in MININGS:
        raise ValueError(f"mining is {mining!r}; choose one of {', '.join(MININGS)}")
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; choose one of {', '.join(FORMS)}")
    others, other_pids = embeddings, pids
    if references is not None:
        others, other_pids = references.embeddings, references.pids
    distances = euclidean_distances(embeddings, others)
    positive = pids[:, None] == other_pids
    negative = ~positive & (other_pids != EMPTY)
    if mining == "hard":
        d_ap, d_an = _hardest(distances, positive, negative)
    else:
        d_ap, d_an = weighted_distances(distances, positive, negative, form=form)
    losses = F.softplus(d_ap - d_an) if margin == 0 else F.relu(d_ap - d_an + margin)
    qualified = (positive.sum(dim=1) > 1) & negative.any(dim=1)
    return losses.where(qualified, 0).sum() / qualified.sum().clamp(min=1)
