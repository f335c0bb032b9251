"""Contrastive losses with a memory of clusters. B: images, D: dimension, C: clusters, M: entries.

All embeddings are L2-normalized.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cluster_contrast_loss(
    embeddings: Tensor, labels: Tensor, memory: Tensor, *, temperature: float
) -> Tensor:
    """Cross-entropy of cosines with all clusters (Dai et al. 2021, arXiv 2103.11568, equation 3).

    Args:
        embeddings: [B, D].
        labels: int64 [B], entries of the memory.
        memory: [C, D], receives no gradient.
        temperature: divides the cosines.

    Returns:
        A scalar.
    """
    return F.cross_entropy(embeddings @ memory.detach().T / temperature, labels)


def hybrid_contrast_loss(
    embeddings: Tensor,
    entries: Tensor,
    memory: Tensor,
    memory_labels: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """SpCL's unified contrastive loss (Ge et al., NeurIPS 2020, equation 1).

    A class is a labeled identity, a cluster or an outlier. Its cosine with an image is the mean
    over its entries, which the paper calls a centroid. As in the authors' program, the centroid is
    not normalized, and 1e-6 is added to the probability, which bounds the loss.

    Args:
        embeddings: [B, D].
        entries: int64 [B], the entry of each image.
        memory: [M, D], receives no gradient.
        memory_labels: int64 [M], classes, numbered from 0 without gaps.
        temperature: divides the cosines.

    Returns:
        A scalar; 0 for an empty batch.
    """
    if not len(embeddings):
        return embeddings.sum()
    cosines = embeddings @ memory.detach().T / temperature
    num_classes = int(memory_labels.max()) + 1
    sizes = torch.bincount(memory_labels, minlength=num_classes)
    # [B, M] -> [B, C]
    sums = cosines.new_zeros(len(cosines), num_classes).index_add(1, memory_labels, cosines)
    probabilities = torch.softmax(sums / sizes, dim=1)
    return F.nll_loss(torch.log(probabilities + 1e-6), memory_labels[entries])


def intra_camera_loss(
    embeddings: Tensor, entries: Tensor, camids: Tensor, memory: Tensor, memory_camids: Tensor
) -> Tensor:
    """CAP's loss within cameras (Wang et al., AAAI 2021, equation 3).

    Cross-entropy with the proxies of the image's own camera. As in the authors' program, the
    result is the sum over the cameras of the batch of the means over their images.

    Args:
        embeddings: [B, D], divided by the temperature.
        entries: int64 [B], the proxy of each image.
        camids: int64 [B].
        memory: proxies [M, D], receive no gradient.
        memory_camids: int64 [M].
    """
    logits = embeddings @ memory.detach().T
    is_other = memory_camids != camids[:, None]
    losses = F.cross_entropy(logits.masked_fill(is_other, -torch.inf), entries, reduction="none")
    return _sum_of_camera_means(losses, camids)


def inter_camera_loss(
    embeddings: Tensor,
    labels: Tensor,
    camids: Tensor,
    memory: Tensor,
    memory_labels: Tensor,
    *,
    num_negatives: int,
) -> Tensor:
    """CAP's loss between cameras (Wang et al., AAAI 2021, equation 4).

    The target is a uniform distribution over all proxies of the image's cluster, among these and
    the nearest `num_negatives` proxies of other clusters. Sums and means as in
    `intra_camera_loss`.

    Args:
        embeddings: [B, D], divided by the temperature.
        labels: int64 [B], the clusters of the images.
        camids: int64 [B].
        memory: proxies [M, D], receive no gradient.
        memory_labels: int64 [M].
    """
    logits = embeddings @ memory.detach().T
    is_positive = memory_labels == labels[:, None]
    positives = logits.masked_fill(~is_positive, -torch.inf)
    others = logits.masked_fill(is_positive, -torch.inf)
    negatives = others.topk(min(num_negatives, others.shape[1]), dim=1).values
    total = torch.logsumexp(torch.cat((positives, negatives), dim=1), dim=1)
    means = (logits * is_positive).sum(dim=1) / is_positive.sum(dim=1)
    return _sum_of_camera_means(total - means, camids)


def _sum_of_camera_means(losses: Tensor, camids: Tensor) -> Tensor:
    """The sum over cameras of the mean loss [B] of their images."""
    counts = (camids[:, None] == camids).sum(dim=1)
    return (losses / counts).sum()


@torch.no_grad()
def update_each(memory: Tensor, embeddings: Tensor, entries: Tensor, momentum: float) -> None:
    """Update entries in place, image by image: m <- normalize(momentum m + (1 - momentum) x).

    The images of an entry follow each other in the order of the batch.

    Args:
        memory: [M, D].
        embeddings: [B, D].
        entries: int64 [B].
    """
    order = torch.argsort(entries, stable=True)
    _, counts = torch.unique_consecutive(entries[order], return_counts=True)
    starts = counts.cumsum(0) - counts
    # The first image of each entry, then the second, ...
    for turn in range(int(counts.max()) if len(counts) else 0):
        chosen = order[(starts + turn)[counts > turn]]
        _blend(memory, entries[chosen], embeddings[chosen], momentum)


@torch.no_grad()
def update_hardest(memory: Tensor, embeddings: Tensor, entries: Tensor, momentum: float) -> None:
    """Update each entry in place once, with its image that has the smallest cosine.

    Args: see `update_each`. Of equal cosines, the first image counts.
    """
    cosines = (embeddings * memory[entries]).sum(dim=1)
    order = torch.argsort(cosines, stable=True)
    order = order[torch.argsort(entries[order], stable=True)]
    is_first = torch.ones_like(order, dtype=torch.bool)
    is_first[1:] = entries[order][1:] != entries[order][:-1]
    chosen = order[is_first]
    _blend(memory, entries[chosen], embeddings[chosen], momentum)


def _blend(memory: Tensor, entries: Tensor, embeddings: Tensor, momentum: float) -> None:
    """One update of different entries, int64 [E] with embeddings [E, D]."""
    mixed = momentum * memory[entries] + (1 - momentum) * embeddings.to(memory.dtype)
    memory[entries] = F.normalize(mixed)


def cluster_centers(embeddings: Tensor, labels: Tensor, num: int) -> Tensor:
    """Normalized means [C, D] of the embeddings [N, D] of each label 0..C-1; others are ignored."""
    known = labels >= 0
    sums = embeddings.new_zeros(num, embeddings.shape[1])
    return F.normalize(sums.index_add_(0, labels[known], embeddings[known]))
