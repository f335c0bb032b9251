"""What a student is made to copy from its teacher. B: images, C: identities, D: width of the embedding.

The gradient reaches the student only.
"""

import torch.nn.functional as F
from torch import Tensor

from layers.distances import squared_distances
from layers.precision import as_float


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of [B, C] log-probabilities, the mean over the batch."""
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def kd_divergence(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, symmetric: bool
) -> Tensor:
    """temperature^2 * KL(teacher || student) of the softened probabilities (Hinton et al. 2015).

    Args:
        student_logits, teacher_logits: [B, C].
        temperature: divides the logits; its square keeps the gradient's size.
        symmetric: the mean of both directions instead (FastReID).

    Raises:
        ValueError: different numbers of identities.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits are {tuple(student_logits.shape)}, teacher logits "
            f"{tuple(teacher_logits.shape)}: both must know the same identities"
        )
    student = F.log_softmax(as_float(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(as_float(teacher_logits.detach()) / temperature, dim=1)
    divergence = _kl(teacher, student)
    if symmetric:
        divergence = (divergence + _kl(student, teacher)) / 2
    return temperature**2 * divergence


def distance_matching(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared difference of all pairwise squared distances (VKD, Porrello et al. 2020, eq. 6).

    Args:
        student, teacher: embeddings [B, D] of the same images; the widths may differ. The mean is over all
            B * B ordered pairs, the diagonal included.

    Raises:
        ValueError: different numbers of images.
    """
    if len(student) != len(teacher):
        raise ValueError(f"{len(student)} student embeddings, {len(teacher)} teacher embeddings")
    teacher = teacher.detach()
    difference = squared_distances(student, student) - squared_distances(teacher, teacher)
    return 0.5 * difference.square().mean()
