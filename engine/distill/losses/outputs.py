"""Losses between logits, metric features or embeddings: (ReidOutput, Batch) -> scalar.

Each is the mean over the teachers, whose outputs are in `batch.teachers`.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import cast

import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.distill.teachers.class_mapping import ClassMapping
from ember_reid.engine.distributed import gather_rows
from ember_reid.layers import cosine_matching
from ember_reid.modeling import ReidOutput
from ember_reid.modeling.adapters import create_projection
from torch import Tensor, nn

BatchLoss = Callable[[ReidOutput, Batch], Tensor]
# (rows of the student, rows of the teacher) -> scalar.
PairLoss = Callable[[Tensor, Tensor], Tensor]


def add(values: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of equal shape, in order."""
    return reduce(torch.add, values)


def mean(values: Sequence[Tensor]) -> Tensor:
    """The mean of tensors of equal shape."""
    return add(values) / len(values)


def create_logit_loss(divergence: PairLoss, classes: Sequence[ClassMapping]) -> BatchLoss:
    """`divergence(student_logits, teacher_logits)` over the common identities.

    The loss is the mean over the student's heads. If the teacher has as many heads, they are
    compared one by one; otherwise each is compared with the mean of the teacher's logits.

    Args:
        classes: per teacher.
    """

    def logit_loss(output: ReidOutput, batch: Batch) -> Tensor:
        values = []
        for teacher, mapping in zip(batch.teachers, classes, strict=True):
            targets = teacher.logits
            if len(targets) != len(output.logits):
                targets = (mean(targets),) * len(output.logits)
            for logits, target in zip(output.logits, targets, strict=True):
                values.append(divergence(*mapping.select(logits.float(), target.float())))
        return mean(values)

    return logit_loss


def create_feature_pair_loss(
    loss: PairLoss, *, gather: Callable[[Tensor], Tensor] = gather_rows
) -> BatchLoss:
    """A loss over pairs of metric features (VKD), of the first head of each network.

    Args:
        gather: returns the rows that are compared: those of all processes, or only their own.
    """

    def feature_pair_loss(output: ReidOutput, batch: Batch) -> Tensor:
        rows = gather(output.features[0].float())
        return mean([loss(rows, gather(t.features[0].float())) for t in batch.teachers])

    return feature_pair_loss


def create_embedding_pair_loss(
    loss: PairLoss, *, gather: Callable[[Tensor], Tensor] = gather_rows
) -> BatchLoss:
    """A loss over pairs of embeddings; `gather` as in create_feature_pair_loss."""

    def embedding_pair_loss(output: ReidOutput, batch: Batch) -> Tensor:
        rows = gather(output.embedding.float())
        return mean([loss(rows, gather(t.embedding.float())) for t in batch.teachers])

    return embedding_pair_loss


def embedding_dim(model: nn.Module) -> int:
    """The dimension of a model's embedding."""
    return cast(int, model.get_submodule("head").dim)


class EmbeddingLoss(nn.Module):
    """1 - cosine between the student's embedding and each teacher's.

    If the dimensions differ, a learned projection is applied to the student's embedding.
    """

    def __init__(self, student_dim: int, teacher_dims: Sequence[int]) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            create_projection(student_dim, dim) for dim in teacher_dims
        )

    def forward(self, output: ReidOutput, batch: Batch) -> Tensor:
        embedding = output.embedding.float()
        return mean(
            [
                cosine_matching(projection(embedding), teacher.embedding)
                for projection, teacher in zip(self.projections, batch.teachers, strict=True)
            ]
        )
