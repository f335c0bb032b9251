"""Handlers that prepare `trainer.state.batch` before the step."""

from collections.abc import Callable

import torch
from ignite.engine import Engine, Events
from torch import Tensor


def iteration_seed(seed: int, iteration: int, rank: int = 0) -> int:
    """A 63-bit seed that differs for every (seed, iteration, rank): the mixing function of SplitMix64, applied thrice.

    All randomness of training comes from it, so a run that was stopped continues exactly without stored generator states.
    """
    mask = (1 << 64) - 1
    value = 0
    for part in (seed, iteration, rank):
        value = (value + part + 0x9E3779B97F4A7C15) & mask
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        value ^= value >> 31
    return value >> 1


class ToDevice:
    """Trainer, GET_BATCH_COMPLETED: moves the batch's tensors to the device."""

    def __init__(self, device: torch.device):
        self.device = device

    def attach(self, engine: Engine, event=Events.GET_BATCH_COMPLETED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        batch = engine.state.batch
        moved = {
            name: value.to(self.device, non_blocking=True)
            for name, value in batch._asdict().items()
            if isinstance(value, Tensor)
        }
        engine.state.batch = batch._replace(**moved)


class Seeder:
    """Trainer, ITERATION_STARTED, first: seeds torch's generators for this iteration (dropout and the like).

    Together with samplers that depend on (seed, epoch) alone this makes every iteration a function of the seed, its number,
    and the weights.
    """

    def __init__(self, seed: int, rank: int):
        self.seed, self.rank = seed, rank

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        torch.manual_seed(iteration_seed(self.seed, engine.state.iteration, self.rank))


class Augment:
    """Trainer, ITERATION_STARTED: uint8 images become augmented, normalized float images, a draw per image.

    The draws belong to the global batch: a rank takes those of its rows, as it takes its rows of the images.
    """

    def __init__(
        self, augmentation: Callable[..., Tensor], *, seed: int, rank: int, world_size: int
    ):
        self.augmentation, self.seed, self.rank, self.world_size = (
            augmentation,
            seed,
            rank,
            world_size,
        )

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        batch = engine.state.batch
        generator = torch.Generator().manual_seed(
            iteration_seed(self.seed + 1, engine.state.iteration)
        )
        images = self.augmentation(
            batch.images, generator, rank=self.rank, world_size=self.world_size
        )
        engine.state.batch = batch._replace(images=images)
