"""Exponential moving averages of weights."""

import copy
from collections.abc import Iterable

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn


class RunningAverage:
    """average += weight * (tensor - average), for many tensors together.

    The tensors are sorted into one list per dtype, because foreach kernels need equal dtypes. This
    is done once, so the tensors must only be changed in place from then on.

    Args:
        averaged: pairs (average, tensor).
        copied: pairs (copy, tensor) of tensors that are not averaged.
    """

    def __init__(
        self,
        averaged: Iterable[tuple[Tensor, Tensor]],
        copied: Iterable[tuple[Tensor, Tensor]] = (),
    ):
        self._averaged = _split_by_dtype(averaged)
        self._copied = _split_by_dtype(copied)

    @torch.no_grad()
    def update(self, weight: float | Tensor) -> None:
        """Update all averages.

        Args:
            weight: of the new tensors, in 0..1. A tensor [1] is read by the kernels, so that a
                captured step can use another weight in each replay.
        """
        for averages, tensors in self._averaged:
            if isinstance(weight, Tensor):
                for average, tensor in zip(averages, tensors, strict=True):
                    average.lerp_(tensor, weight.to(average.dtype).view(()))
            else:
                torch._foreach_lerp_(averages, tensors, weight=weight)
        for copies, tensors in self._copied:
            torch._foreach_copy_(copies, tensors)


def _split_by_dtype(pairs: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[list, list]]:
    """One list of averages and one of tensors per dtype."""
    groups: dict[torch.dtype, tuple[list, list]] = {}
    for average, tensor in pairs:
        averages, tensors = groups.setdefault(average.dtype, ([], []))
        averages.append(average.detach())
        tensors.append(tensor.detach())
    return list(groups.values())


class EMA:
    """Trainer, ITERATION_COMPLETED: average = decay * average + (1 - decay) * weights.

    Buffers are copied. Unlike ignite's EMAHandler, all tensors are updated together: a few kernel
    launches on a GPU instead of several hundred.

    Attributes:
        model: the model that is evaluated and saved: the average, or `trained` itself if the decay
            is 0.
    """

    def __init__(self, trained: nn.Module, decay: float):
        self.trained, self.decay = trained, decay
        self.model = copy.deepcopy(trained).requires_grad_(False) if decay > 0 else trained
        self._average: RunningAverage | None = None

    def attach(self, engine: Engine, event=Events.ITERATION_COMPLETED) -> None:
        if self.decay > 0:
            engine.add_event_handler(event, self)

    def __call__(self) -> None:
        if self.decay == 0:
            return
        if self._average is None:
            # Not earlier: batch norms may have been replaced by synchronized ones.
            self._average = RunningAverage(
                zip(self.model.parameters(), self.trained.parameters(), strict=True),
                zip(self.model.buffers(), self.trained.buffers(), strict=True),
            )
        self._average.update(1 - self.decay)
