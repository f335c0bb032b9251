"""The learning rate as a function of progress."""

from collections.abc import Callable, Sequence

import torch
from ignite.engine import Engine, Events


class LearningRate:
    """Trainer, ITERATION_STARTED: lr = initial_lr * schedule(iteration), iterations counted from 1.

    Unlike ignite's ParamScheduler it has no state: the factor follows from the trainer's progress
    alone, so a resumed run has the same learning rates.
    """

    def __init__(
        self, optimizers: Sequence[torch.optim.Optimizer], schedule: Callable[[int], float]
    ):
        self.optimizers, self.schedule = optimizers, schedule

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        factor = self.schedule(engine.state.iteration)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
