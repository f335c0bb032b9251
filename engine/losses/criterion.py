"""The weighted sum of losses that a recipe selects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce

import ignite.distributed as idist
import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.distributed import gather_rows
from ember_reid.layers import MemoryBank
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn


@dataclass(frozen=True)
class WeightedLoss:
    """A loss (ReidOutput, Batch) -> scalar and its weight.

    The function may be a module with parameters.
    """

    weight: float
    function: Callable[[ReidOutput, Batch], Tensor]


class Criterion(nn.Module):
    """Named losses.

    Parameters of losses (such as the centers of center loss) belong to this module.
    """

    def __init__(self, terms: Mapping[str, WeightedLoss]):
        super().__init__()
        if not terms:
            raise ValueError("a criterion needs at least one loss with a weight above 0")
        self.terms = dict(terms)
        self.modules_by_name = nn.ModuleDict(
            {
                name: term.function
                for name, term in terms.items()
                if isinstance(term.function, nn.Module)
            }
        )

    def forward(self, output: ReidOutput, batch: Batch) -> dict[str, Tensor]:
        """{name: weight * loss(output, batch)}; the total loss is the sum of the values."""
        return {
            name: term.weight * term.function(output, batch) for name, term in self.terms.items()
        }


def mean_over(
    tensors: tuple[Tensor, ...],
    loss: Callable[[Tensor], Tensor],
    *,
    global_weight: float | None = None,
) -> Tensor:
    """The mean of `loss(tensor)` over the heads of a model.

    Args:
        tensors: one per head.
        loss: tensor -> scalar.
        global_weight: the weight of the first head; the others share the rest equally. None: all
            heads have equal weights.
    """
    losses = [loss(tensor) for tensor in tensors]
    if global_weight is None or len(losses) == 1:
        return reduce(torch.add, losses) / len(losses)
    local = reduce(torch.add, losses[1:]) / (len(losses) - 1)
    return (1 - global_weight) * local + global_weight * losses[0]


def over_classifiers(
    output: ReidOutput,
    batch: Batch,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    global_weight: float | None = None,
) -> Tensor:
    """The mean of a loss (logits [B, C], pids [B]) -> scalar over the classifiers of a model."""
    return mean_over(
        output.logits, lambda logits: loss(logits, batch.pids), global_weight=global_weight
    )


def over_heads(
    output: ReidOutput,
    batch: Batch,
    *,
    loss: Callable[..., Tensor],
    share: Callable[[Tensor], Tensor],
    global_weight: float | None = None,
) -> Tensor:
    """The mean of a pair loss (features [B, D], pids [B]) -> scalar over the heads of a model.

    `share` gathers the images that are compared with each other.
    """
    pids = share(batch.pids)
    return mean_over(
        output.features,
        lambda features: loss(share(features), pids),
        global_weight=global_weight,
    )


class PerHeadLoss(nn.Module):
    """The mean over all heads of a loss module (features [B, D], pids [B]) -> scalar."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, output: ReidOutput, batch: Batch) -> Tensor:
        return mean_over(output.features, lambda features: self.loss(features, batch.pids))


class CrossBatchMemoryLoss(nn.Module):
    """A pair loss between the batch and stored embeddings of earlier batches (arXiv 1912.06798).

    Each process stores the embeddings of all processes, so the memory is the same everywhere.

    Args:
        loss: (features, pids, references=) -> scalar.
        bank: the stored embeddings.
        share: gathers the anchors from all processes, or the identity function.
    """

    def __init__(
        self, loss: Callable[..., Tensor], bank: MemoryBank, *, share: Callable[[Tensor], Tensor]
    ):
        super().__init__()
        self.loss, self.bank, self.share = loss, bank, share

    def forward(self, output: ReidOutput, batch: Batch) -> Tensor:
        (features,) = output.features
        references = self.bank.store(gather_rows(features.detach()), gather_rows(batch.pids))
        anchors, pids = self.share(features), self.share(batch.pids)
        # Position of this process's anchors among the rows just stored; 0 if anchors are shared.
        first = idist.get_rank() * len(pids) % len(references.own)
        own = references.own[first : first + len(pids)]
        return self.loss(anchors, pids, references=references._replace(own=own))
