"""An exponential moving average of the weights."""

import copy

import torch
from ignite.engine import Engine, Events
from torch import nn


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

    def attach(self, engine: Engine, event=Events.ITERATION_COMPLETED) -> None:
        if self.decay > 0:
            engine.add_event_handler(event, self)

    @torch.no_grad()
    def __call__(self) -> None:
        torch._foreach_lerp_(
            list(self.model.parameters()), list(self.trained.parameters()), weight=1 - self.decay
        )
        buffers = list(self.model.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(self.trained.buffers()))
