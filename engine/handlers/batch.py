"""Handlers that prepare an iteration: the batch, the random seed and the learning rate."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from ember_reid.data.augment_fixed import FixedShapeAugmentation
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


class BatchTransform(ABC):
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

    @abstractmethod
    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        """The new batch. Nothing here may wait for the device or depend on `iteration`.

        Args:
            drawn: the result of `draw`, on the CPU or on the device of the batch.
        """


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

    def seed_iteration(self, iteration: int, device: torch.device) -> None:
        """Seed the generators of the CPU and of one device: the same numbers, in less time."""
        seed = iteration_seed(self.seed, iteration, self.rank)
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)


class Augment:
    """Trainer, ITERATION_STARTED: uint8 images become augmented, normalized float images.

    Random numbers are drawn for the images of all ranks; a rank uses those of its own images.
    """

    def __init__(
        self, augmentation: FixedShapeAugmentation, *, seed: int, rank: int, world_size: int
    ):
        self.augmentation, self.seed = augmentation, seed
        self.rank, self.world_size = rank, world_size

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        batch = current_batch(engine)
        iteration = engine.state.iteration
        images = self.augmentation(
            batch.images,
            self.create_generator(iteration),
            step=iteration - 1,
            rank=self.rank,
            world_size=self.world_size,
        )
        set_batch(engine, batch._replace(images=images))

    def draw(self, iteration: int, num: int, size: tuple[int, int]) -> Tensor:
        """The table of `FixedShapeAugmentation.draw` for the `num` images of this rank."""
        return self.augmentation.draw(
            num,
            size,
            self.create_generator(iteration),
            rank=self.rank,
            world_size=self.world_size,
        )

    def apply_policies(self, images: Tensor, iteration: int) -> tuple[Tensor, Tensor]:
        """See `FixedShapeAugmentation.apply_policies`."""
        return self.augmentation.apply_policies(
            images,
            self.create_generator(iteration),
            step=iteration - 1,
            rank=self.rank,
            world_size=self.world_size,
        )

    def create_generator(self, iteration: int) -> torch.Generator:
        """The generator of an iteration."""
        return torch.Generator().manual_seed(iteration_seed(self.seed + 1, iteration))


class LearningRate:
    """Trainer, ITERATION_STARTED: lr = initial_lr * factors[iteration - 1].

    Unlike ignite's ParamScheduler it has no state: the factor follows from the trainer's progress
    alone, so a resumed run has the same learning rates.

    Args:
        optimizers: the learning rates of the first one follow the schedule.
        factors: of all iterations.
        is_single: round the rates to float32, as a captured step does on a GPU.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        factors: Sequence[float],
        *,
        is_single: bool = False,
    ):
        self.optimizers, self.factors, self.is_single = optimizers, factors, is_single

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, self.rates(engine.state.iteration), strict=True):
            group["lr"] = rate

    def rates(self, iteration: int) -> list[float]:
        """The learning rate of each parameter group, of all optimizers in their order."""
        factor = self.factors[iteration - 1]
        rates = [group["initial_lr"] * factor for group in self.optimizers[0].param_groups]
        for optimizer in self.optimizers[1:]:
            rates += [group["initial_lr"] for group in optimizer.param_groups]
        return torch.tensor(rates, dtype=torch.float32).tolist() if self.is_single else rates
