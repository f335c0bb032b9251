"""Handlers between the backward pass and the optimizer step, where gradients may be changed."""

import logging
import re
from collections.abc import Iterable, Sequence

import ignite.distributed as idist
import torch
from ember_reid.engine.distributed import average
from ember_reid.engine.events import TrainingEvents
from ignite.engine import Engine, Events
from torch import nn

logger = logging.getLogger("ember.train")

# Parts of ResNets, and of networks of timm.
_RESNET_PART = re.compile(r"backbone\.(conv1|bn1|layer[1-4])(\..+)?")
_RESNET_STAGES = {f"backbone.layer{stage}" for stage in (1, 2, 3, 4)}
_TIMM_PART = re.compile(r"backbone\.(vit\.)?network\..+")


class AllReduceGradients:
    """Trainer, BACKWARD_COMPLETED: averages gradients over all ranks.

    For parameters that do not belong to a DistributedDataParallel model, such as the centers of
    center loss.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = list(parameters)

    def attach(self, engine: Engine, event=TrainingEvents.BACKWARD_COMPLETED) -> None:
        if self.parameters and idist.get_world_size() > 1:
            engine.add_event_handler(event, self)

    def __call__(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            average(parameter.grad)


class RescaleCenterGradients:
    """Trainer, BACKWARD_COMPLETED: divides the gradients of the centers by the center loss weight.

    The step of the centers then depends on their own learning rate only (Wen et al., ECCV 2016, as
    in reid-strong-baseline).
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
    """Trainer, BACKWARD_COMPLETED: scales all gradients to a joint L2 norm of at most `max_norm`.

    0 disables clipping.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], max_norm: float):
        self.parameters, self.max_norm = list(parameters), max_norm

    def attach(self, engine: Engine, event=TrainingEvents.BACKWARD_COMPLETED) -> None:
        if self.max_norm > 0:
            engine.add_event_handler(event, self)

    def __call__(self) -> None:
        nn.utils.clip_grad_norm_(self.parameters, self.max_norm)


def adjust_frozen_parts(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Adjust SOLVER.FREEZE of a recipe to another backbone, and log a change in one line.

    Parts of ResNets, which another network does not have, become the whole backbone if they
    include all four stages; otherwise nothing replaces them. Nothing replaces parts of timm's
    networks in other networks. Other names are returned as they are.
    """
    parts = dict(model.named_modules())
    foreign = [] if "backbone.layer1" in parts else [_RESNET_PART]
    foreign += [] if {"backbone.network", "backbone.vit"} & parts.keys() else [_TIMM_PART]
    missing = [n for n in names if n not in parts and any(f.fullmatch(n) for f in foreign)]
    if not missing:
        return tuple(names)
    kept = [name for name in names if name not in missing]
    if set(missing) >= _RESNET_STAGES and "backbone" not in kept:
        kept.insert(0, "backbone")
    logger.info("the network has no SOLVER.FREEZE %s (now %s)", ", ".join(missing), tuple(kept))
    return tuple(kept)


class Freeze:
    """Keeps parts of the model unchanged during the first iterations.

    Trainer, ITERATION_STARTED: batch norms of these parts use their running statistics. Trainer,
    BACKWARD_COMPLETED: gradients of these parts are set to None, so the optimizers skip them.
    `requires_grad` stays True, because DistributedDataParallel relies on it.

    Args:
        names: modules of the model, such as "backbone"; see adjust_frozen_parts.
        iterations: how many iterations to freeze them.

    Raises:
        ValueError: the model has no module of that name.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], iterations: int):
        modules = dict(model.named_modules())
        names = adjust_frozen_parts(model, names)
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
