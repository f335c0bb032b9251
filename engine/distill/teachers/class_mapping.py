"""Which columns of a teacher's and a student's logits belong to the same identity."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

logger = logging.getLogger("ember.distill")

# (dataset, its label for the identity).
Identity = tuple[str, str]


@dataclass(frozen=True)
class ClassMapping:
    """Matching columns of student and teacher; empty if all columns agree, in the same order."""

    student: tuple[int, ...] = ()
    teacher: tuple[int, ...] = ()

    def select(self, student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C_s] and [B, C_t] -> the columns of the common identities, [B, C] each."""
        if not self.student:
            return student_logits, teacher_logits
        device = student_logits.device
        return (
            student_logits[:, _to_index(self.student, device)],
            teacher_logits[:, _to_index(self.teacher, device)],
        )


@lru_cache
def _to_index(columns: tuple[int, ...], device: torch.device) -> Tensor:
    """The columns as a tensor; cached, because each copy to a GPU would wait for the device."""
    return torch.tensor(columns, device=device)


def match_classes(
    student: Sequence[Sequence[str]], teacher: Sequence[Sequence[str]], *, name: str
) -> ClassMapping:
    """Find the identities that both have.

    Args:
        student, teacher: the identity (dataset, label) of each class, in the order of the logits.
        name: of the teacher, for messages.

    Raises:
        ValueError: there are fewer than two common identities.
    """
    own: list[Identity] = [(dataset, label) for dataset, label in student]
    other: list[Identity] = [(dataset, label) for dataset, label in teacher]
    if own == other:
        return ClassMapping()
    column_by_identity = {identity: column for column, identity in enumerate(other)}
    pairs = [
        (column, column_by_identity[identity])
        for column, identity in enumerate(own)
        if identity in column_by_identity
    ]
    if len(pairs) < 2:
        raise ValueError(
            f"KD.LOGITS.WEIGHT compares identities, but the teacher {name} was trained on "
            f"{_describe(other)} and the student is trained on {_describe(own)}, with {len(pairs)} "
            "in common; set KD.LOGITS.WEIGHT 0 and use KD.EMBEDDING, KD.RELATION or KD.DISTANCES, "
            "which need no common identities"
        )
    logger.warning(
        "teacher %s has %d identities, the student has %d: "
        "logits are compared over the %d common identities",
        name,
        len(other),
        len(own),
        len(pairs),
    )
    return ClassMapping(
        student=tuple(column for column, _ in pairs), teacher=tuple(column for _, column in pairs)
    )


def _describe(classes: Sequence[Identity]) -> str:
    names = list(dict.fromkeys(dataset for dataset, _ in classes))
    return f"{len(classes)} identities of {', '.join(names) or 'no dataset'}"
