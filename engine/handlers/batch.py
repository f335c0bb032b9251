"""Handlers that prepare an iteration: the batch, the random seed and the learning rate."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.events import EpochSampler, current_batch, set_batch
from ignite.engine import Engine, Events
from torch import Tensor


def iteration_seed(seed: int, iteration: int, rank: int = 0) -> int:
    """A 63-bit seed for every (seed, iteration, rank): SplitMix64, applied three times.

    All random numbers of training derive from it. A resumed run therefore continues exactly,
    without stored generator states.
    """
    mask = (1 << 64) - 1
    value = 0
    for part in (seed, iteration, rank):
        value = (value + part + 0x9E3779B97F4A7C15) & mask
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        value ^= value >> 31
    return value >> 1


class SamplerEpoch:
    """Trainer, EPOCH_STARTED: tells the batch sampler the epoch, which determines its order."""

    def __init__(self, sampler: EpochSampler):
        self.sampler = sampler

    def attach(self, engine: Engine, event=Events.EPOCH_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        self.sampler.set_epoch(engine.state.epoch)


class ToDevice:
    """Trainer, GET_BATCH_COMPLETED: moves the tensors of the batch to the device."""

    def __init__(self, device: torch.device):
        self.device = device

    def attach(self, engine: Engine, event=Events.GET_BATCH_COMPLETED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        batch = current_batch(engine)
        moved: dict[str, Any] = {
            name: value.to(self.device, non_blocking=True)
            for name, value in batch._asdict().items()
            if isinstance(value, Tensor)
        }
        set_batch(engine, batch._replace(**moved))


class BatchTransform:
    """Trainer, ITERATION_STARTED: replaces the batch.

    The eager step calls both methods in each iteration. A captured step calls `draw` in each
    iteration and copies the result to the device; `apply` is part of the graph.
    """

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        drawn = self.draw(engine.state.iteration)
        set_batch(engine, self.apply(current_batch(engine), drawn))

    def draw(self, iteration: int) -> Tensor:
        """What changes in each iteration, as a CPU tensor of constant shape; empty by default."""
        return torch.empty(0)

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        """The new batch. Nothing here may wait for the device or depend on `iteration`.

        Args:
            drawn: the result of `draw`, on the CPU or on the device of the batch.
        """
        raise NotImplementedError


class Seeder:
    """Trainer, ITERATION_STARTED, first: seeds torch's generators for this iteration.

    Samplers depend on (seed, epoch) only. Together this makes every iteration a function of the
    seed, the number of the iteration and the weights.
    """

    def __init__(self, seed: int, rank: int):
        self.seed, self.rank = seed, rank

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        torch.manual_seed(iteration_seed(self.seed, engine.state.iteration, self.rank))


class Augment:
    """Trainer, ITERATION_STARTED: uint8 images become augmented, normalized float images.

    Random numbers are drawn for the images of all ranks; a rank uses those of its own images.
    """

    def __init__(
        self, augmentation: Callable[..., Tensor], *, seed: int, rank: int, world_size: int
    ):
        self.augmentation, self.seed = augmentation, seed
        self.rank, self.world_size = rank, world_size

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        batch = current_batch(engine)
        seed = iteration_seed(self.seed + 1, engine.state.iteration)
        generator = torch.Generator().manual_seed(seed)
        images = self.augmentation(
            batch.images,
            generator,
            step=engine.state.iteration - 1,
            rank=self.rank,
            world_size=self.world_size,
        )
        set_batch(engine, batch._replace(images=images))


class LearningRate:
    """Trainer, ITERATION_STARTED: lr = initial_lr * factors[iteration - 1].

    Unlike ignite's ParamScheduler it has no state: the factor follows from the trainer's progress
    alone, so a resumed run has the same learning rates.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], factors: Sequence[float]):
        self.optimizers, self.factors = optimizers, factors

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        factor = self.factors[engine.state.iteration - 1]
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
