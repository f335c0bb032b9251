"""Additional events of the trainer, and typed access to its state."""

from typing import Any, NamedTuple, Protocol, cast

from ember_reid.data.batch import Batch
from ignite.engine import Engine, EventEnum
from torch import Tensor
from torch.utils.data import DataLoader


class TrainingEvents(EventEnum):
    """Events fired on the trainer, which keep handlers independent of each other.

    BACKWARD_COMPLETED: gradients are unscaled and may be changed; the optimizer step follows.
    NEW_BEST: an evaluation gave the best score so far.
    BEFORE_SAVING: a checkpoint is about to be written; a handler may raise to prevent it.
    """

    BACKWARD_COMPLETED = "backward_completed"
    NEW_BEST = "new_best"
    BEFORE_SAVING = "before_saving"


class StepOutput(NamedTuple):
    """`engine.state.output` after a training step: detached tensors that stay on the device.

    Attributes:
        losses: weighted losses by name; scalars, means over the batch.
        accuracy: fraction of images that the first classifier assigns correctly; a scalar.
        num_images: of this process.
    """

    losses: dict[str, Tensor]
    accuracy: Tensor
    num_images: int


class EpochSampler(Protocol):
    """A batch sampler whose order depends on the seed and the epoch."""

    def set_epoch(self, epoch: int) -> None: ...

    def skip(self, num_batches: int) -> None: ...


def current_batch(engine: Engine) -> Batch:
    """The batch of the current iteration, `engine.state.batch`."""
    return cast(Batch, engine.state.batch)


def set_batch(engine: Engine, batch: Batch) -> None:
    """Replace the batch of the current iteration."""
    engine.state.batch = cast(Any, batch)


def step_output(engine: Engine) -> StepOutput:
    """The output of the last training step, `engine.state.output`."""
    return cast(StepOutput, engine.state.output)


def epoch_sampler(loader: DataLoader) -> EpochSampler:
    """The batch sampler of a training loader."""
    return cast(EpochSampler, loader.batch_sampler)


def epoch_length(engine: Engine) -> int:
    """Iterations per epoch; 0 before the first run."""
    return engine.state.epoch_length or 0
