"""Distillation losses. B: images, C: identities, D: dimension of the embedding.

Only the student receives a gradient.
"""

import torch
import torch.nn.functional as F
from ember_reid.layers.numerics import (
    as_float,
    cosine_similarities,
    euclidean_distances,
    squared_distances,
)
from torch import Tensor


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of [B, C] log-probabilities, averaged over the batch."""
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def kd_divergence(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, symmetric: bool
) -> Tensor:
    """temperature^2 * KL(teacher || student) of the softened probabilities (Hinton et al. 2015).

    Args:
        student_logits, teacher_logits: [B, C].
        temperature: the logits are divided by it. The factor temperature^2 keeps the magnitude of
            the gradient.
        symmetric: average the divergences in both directions (FastReID).

    Raises:
        ValueError: different numbers of identities.
    """
    _check_logits(student_logits, teacher_logits)
    student = F.log_softmax(as_float(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(as_float(teacher_logits.detach()) / temperature, dim=1)
    divergence = _kl(teacher, student)
    if symmetric:
        divergence = (divergence + _kl(student, teacher)) / 2
    return temperature**2 * divergence


def distance_matching(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared difference of all pairwise squared distances.

    VKD, Porrello et al. 2020, eq. 6. The mean is over all B * B ordered pairs, including the
    diagonal.

    Args:
        student, teacher: embeddings [B, D] of the same images; the dimensions D may differ.

    Raises:
        ValueError: different numbers of images.
    """
    _check_rows(student, teacher)
    teacher = teacher.detach()
    difference = squared_distances(student, student) - squared_distances(teacher, teacher)
    return 0.5 * difference.square().mean()


def logit_matching(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean squared difference of two sets of logits [B, C].

    Ba and Caruana 2014; in VKD's program an alternative to the divergence.

    Raises:
        ValueError: different numbers of identities.
    """
    _check_logits(student_logits, teacher_logits)
    return F.mse_loss(as_float(student_logits), as_float(teacher_logits.detach()))


def cosine_matching(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - cosine between corresponding rows of two embeddings [B, D] of the same images.

    Raises:
        ValueError: different shapes. If the dimensions differ, project the student first.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student embeddings are {tuple(student.shape)}, "
            f"teacher embeddings {tuple(teacher.shape)}: the cosine needs equal shapes"
        )
    return (1 - F.cosine_similarity(as_float(student), as_float(teacher.detach()))).mean()


def similarity_matching(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of all pairwise cosines, on which a ranking by cosine depends.

    Args:
        student, teacher: embeddings [B, D] of the same images; the dimensions D may differ.

    Raises:
        ValueError: different numbers of images.
    """
    _check_rows(student, teacher)
    teacher = teacher.detach()
    return F.mse_loss(cosine_similarities(student, student), cosine_similarities(teacher, teacher))


def relational_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between pairwise distances (RKD-D; Park et al. 2019, eq. 5-7).

    The distances of each network are divided by their mean over pairs of different images. The loss
    is the mean over all B * B ordered pairs.

    Args:
        student, teacher: embeddings [B, D] of the same images; the dimensions D may differ.

    Raises:
        ValueError: different numbers of images.
    """
    _check_rows(student, teacher)
    return F.smooth_l1_loss(_scaled_distances(student), _scaled_distances(teacher.detach()))


def _scaled_distances(x: Tensor) -> Tensor:
    off_diagonal = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    distances = euclidean_distances(x, x) * off_diagonal
    return distances / (distances.sum() / max(len(x) * (len(x) - 1), 1)).clamp(min=1e-12)


def relational_angles(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the cosines of all angles i-j-k (RKD-A; Park et al. 2019, eq. 8-10).

    Memory grows with B^3.

    Args:
        student, teacher: embeddings [B, D] of the same images; the dimensions D may differ.

    Raises:
        ValueError: different numbers of images.
    """
    _check_rows(student, teacher)
    return F.smooth_l1_loss(_angle_cosines(student), _angle_cosines(teacher.detach()))


def _angle_cosines(x: Tensor) -> Tensor:
    """Cosine of the angle at j between i and k, [B, B, B] as (j, i, k); 0 if two coincide."""
    x = as_float(x)
    # Unit vectors from j to i, [B, B, D] in the order (j, i).
    directions = F.normalize(x[None, :] - x[:, None], dim=2)
    return torch.bmm(directions, directions.transpose(1, 2))


def _check_logits(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"student logits are {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}: "
            "both must know the same identities"
        )


def _check_rows(student: Tensor, teacher: Tensor) -> None:
    if len(student) != len(teacher):
        raise ValueError(f"{len(student)} student embeddings, {len(teacher)} teacher embeddings")
