"""Handlers between backward and the optimizers' step, where gradients may be changed."""

from collections.abc import Iterable, Sequence

import ignite.distributed as idist
import torch
from ember_reid.engine.trainer import TrainingEvents
from ignite.engine import Engine, Events
from torch import nn


class ShareGradients:
    """Trainer, BACKWARD_COMPLETED: averages over the ranks the gradients of parameters that no distributed model owns."""

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = list(parameters)

    def attach(self, engine: Engine, event=TrainingEvents.BACKWARD_COMPLETED) -> None:
        if self.parameters and idist.get_world_size() > 1:
            engine.add_event_handler(event, self)

    def __call__(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            idist.all_reduce(parameter.grad)
            parameter.grad /= idist.get_world_size()


class RescaleCenters:
    """Trainer, BACKWARD_COMPLETED: divides the centers' gradients by the weight of the center loss.

    So the step of the centers depends on their own learning rate alone (reid-strong-baseline; Wen et al., ECCV 2016).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], weight: float):
        self.parameters, self.weight = list(parameters), weight

    def attach(self, engine: Engine, event=TrainingEvents.BACKWARD_COMPLETED) -> None:
        if self.parameters and self.weight > 0:
            engine.add_event_handler(event, self)

    def __call__(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad /= self.weight


class ClipGradients:
    """Trainer, BACKWARD_COMPLETED: scales all gradients together down to a Euclidean norm of `max_norm`; 0 is off."""

    def __init__(self, parameters: Iterable[nn.Parameter], max_norm: float):
        self.parameters, self.max_norm = list(parameters), max_norm

    def attach(self, engine: Engine, event=TrainingEvents.BACKWARD_COMPLETED) -> None:
        if self.max_norm > 0:
            engine.add_event_handler(event, self)

    def __call__(self) -> None:
        nn.utils.clip_grad_norm_(self.parameters, self.max_norm)


class Freeze:
    """Keeps parts of the model as they are for the first iterations.

    Trainer, ITERATION_STARTED: the parts' batch norms use their running statistics. Trainer, BACKWARD_COMPLETED: the parts'
    gradients are dropped, so that the optimizers pass them over (requires_grad stays, a distributed model relies on it).
    """

    def __init__(self, model: nn.Module, names: Sequence[str], iterations: int):
        modules = dict(model.named_modules())
        unknown = [name for name in names if name not in modules]
        if unknown:
            raise ValueError(
                f"SOLVER.FREEZE names {', '.join(unknown)}, the model has "
                f"{', '.join(name for name, _ in model.named_children())}"
            )
        self.modules = [modules[name] for name in names]
        self.parameters = [
            parameter for module in self.modules for parameter in module.parameters()
        ]
        self.iterations = iterations

    def attach(self, engine: Engine) -> None:
        if self.modules and self.iterations > 0:
            engine.add_event_handler(Events.ITERATION_STARTED, self.set_mode)
            engine.add_event_handler(TrainingEvents.BACKWARD_COMPLETED, self.drop_gradients)

    def set_mode(self, engine: Engine) -> None:
        if engine.state.iteration <= self.iterations + 1:
            for module in self.modules:
                module.train(engine.state.iteration > self.iterations)

    def drop_gradients(self, engine: Engine) -> None:
        if engine.state.iteration <= self.iterations:
            for parameter in self.parameters:
                parameter.grad = None
