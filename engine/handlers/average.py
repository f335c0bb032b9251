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
        for average, weights in zip(self.model.parameters(), self.trained.parameters(), strict=True):
            average.lerp_(weights, self.momentum)
        for average, buffer in zip(self.model.buffers(), self.trained.buffers(), strict=True):
            average.copy_(buffer)
