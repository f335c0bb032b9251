"""The weighted sum of loss terms that a recipe asks for."""

from collections.abc import Callable
from typing import NamedTuple

import ignite.distributed as idist
from ember_reid.engine.distributed import gather_rows
from ember_reid.layers import MemoryBank
from torch import Tensor, nn


class Term(NamedTuple):
    """One loss: its weight and (ReidOutput, Batch) -> scalar. The function may be a module with parameters."""

    weight: float
    function: Callable[..., Tensor]


class Criterion(nn.Module):
    """Named terms; the parameters of those that have any (the centers of center loss) are this module's parameters."""

    def __init__(self, terms: dict[str, Term]):
        super().__init__()
        if not terms:
            raise ValueError("a criterion needs at least one term with a weight above 0")
        self.terms = dict(terms)
        self.modules_by_name = nn.ModuleDict(
            {
                name: term.function
                for name, term in terms.items()
                if isinstance(term.function, nn.Module)
            }
        )

    def forward(self, output, batch) -> dict[str, Tensor]:
        """{name: weight * term(output, batch)}; the total loss is the sum of the values."""
        return {
            name: term.weight * term.function(output, batch) for name, term in self.terms.items()
        }


def mean_over(tensors: tuple[Tensor, ...], loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of a loss over the heads of a model."""
    return sum(loss(tensor) for tensor in tensors) / len(tensors)


class OverFeatures(nn.Module):
    """A loss module (embeddings, pids) -> scalar as a term: its mean over the features of all heads."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, output, batch) -> Tensor:
        return mean_over(output.features, lambda features: self.loss(features, batch.pids))


class OverMemory(nn.Module):
    """A pair loss (features, pids, references=) between the batch and the embeddings of earlier ones, as a term.

    Every process keeps the embeddings of all, so the memory is the same everywhere; `share` says whose features are anchors,
    as for the pairs of the batch.
    """

    def __init__(
        self, loss: Callable[..., Tensor], bank: MemoryBank, *, share: Callable[[Tensor], Tensor]
    ):
        super().__init__()
        self.loss, self.bank, self.share = loss, bank, share

    def forward(self, output, batch) -> Tensor:
        (features,) = output.features
        references = self.bank.store(gather_rows(features.detach()), gather_rows(batch.pids))
        anchors, pids = self.share(features), self.share(batch.pids)
        first = idist.get_rank() * len(pids) % len(references.own)  # 0 where all processes share
        own = references.own[first : first + len(pids)]
        return self.loss(anchors, pids, references=references._replace(own=own))
