"""Which columns of a teacher's and a student's logits mean the same identity."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

logger = logging.getLogger("ember.distill")

Identity = tuple[str, str]  # (data set, its label for the identity)


class CommonClasses(NamedTuple):
    """Columns of student and teacher that belong together; empty where all columns agree in order."""

    student: tuple[int, ...] = ()
    teacher: tuple[int, ...] = ()

    def select(self, student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C_s] and [B, C_t] -> [B, common] each; as they are where nothing has to be selected."""
        if not self.student:
            return student_logits, teacher_logits
        device = student_logits.device
        return (
            student_logits[:, _columns(self.student, device)],
            teacher_logits[:, _columns(self.teacher, device)],
        )


@lru_cache
def _columns(columns: tuple[int, ...], device: torch.device) -> Tensor:
    """The columns as an index that stays on the device: copying it in every iteration would wait for it."""
    return torch.tensor(columns, device=device)


def match_classes(
    student: Sequence[Identity], teacher: Sequence[Identity], *, name: str
) -> CommonClasses:
    """The identities that both know.

    Args:
        student, teacher: the identity of each class, in the order of the logits.
        name: of the teacher, for messages.

    Raises:
        ValueError: fewer than two identities in common.
    """
    student, teacher = [tuple(item) for item in student], [tuple(item) for item in teacher]
    if student == teacher:
        return CommonClasses()
    columns = {identity: column for column, identity in enumerate(teacher)}
    pairs = [
        (column, columns[identity])
        for column, identity in enumerate(student)
        if identity in columns
    ]
    if len(pairs) < 2:
        raise ValueError(
            f"KD.LOGITS.WEIGHT compares identities, but the teacher {name} was trained on {_describe(teacher)} and the "
            f"student is trained on {_describe(student)}, with {len(pairs)} in common; set KD.LOGITS.WEIGHT 0 and use "
            "KD.EMBEDDING, KD.RELATION or KD.DISTANCES, which need no common identities"
        )
    logger.warning(
        "teacher %s knows %d identities, the student %d: logits are compared over the %d that both know",
        name,
        len(teacher),
        len(student),
        len(pairs),
    )
    own, other = zip(*pairs, strict=True)
    return CommonClasses(own, other)


def _describe(classes: Sequence[Identity]) -> str:
    names = list(dict.fromkeys(dataset for dataset, _ in classes))
    return f"{len(classes)} identities of {', '.join(names) or 'nothing'}"
