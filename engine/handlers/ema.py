"""A running average of the weights."""

import copy

import torch
from ignite.engine import Engine, Events
from torch import nn


class ModelAverage:
    """Trainer, ITERATION_COMPLETED: average = (1 - momentum) * average + momentum * weights; buffers are copied.

    `model` is what is evaluated and saved as the result: the average, or with momentum 0 the trained model itself.
    """

    def __init__(self, trained: nn.Module, momentum: float):
        self.trained, self.momentum = trained, momentum
        self.model = copy.deepcopy(trained).requires_grad_(False) if momentum > 0 else trained

    def attach(self, engine: Engine, event=Events.ITERATION_COMPLETED) -> None:
        if self.momentum > 0:
            engine.add_event_handler(event, self)

    @torch.no_grad()
    def __call__(self) -> None:
        # all tensors at once: on a GPU a few launches in the place of some hundred
        torch._foreach_lerp_(
            list(self.model.parameters()), list(self.trained.parameters()), weight=self.momentum
        )
        buffers = list(self.model.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(self.trained.buffers()))
