"""Additional events of the trainer, typed access to its state, and reading it without waiting."""

from collections import deque
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import torch
from ember_reid.data.batch import Batch
from ignite.engine import Engine, EventEnum
from torch import Tensor
from torch.utils.data import DataLoader

Note = TypeVar("Note")


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


class HostCopy:
    """A copy of a tensor in host memory, which arrives later if the tensor is on a GPU.

    The copy contains the values at the time of the call, because a GPU executes its operations in
    order.
    """

    def __init__(self, tensor: Tensor):
        tensor = tensor.detach()
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            host = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._values = host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._values = tensor.clone()

    def has_arrived(self) -> bool:
        """Whether `read` does not wait."""
        return self._event is None or self._event.query()

    def read(self) -> Tensor:
        """The values; waits until they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._values


class PendingReads(Generic[Note]):
    """Copies on their way to the host, in order, each with a note about it."""

    def __init__(self) -> None:
        self._reads: deque[tuple[HostCopy, Note]] = deque()

    def start(self, tensor: Tensor, note: Note) -> None:
        """Start to copy a tensor."""
        self._reads.append((HostCopy(tensor), note))

    def finished(self, *, wait: bool = False) -> list[tuple[Tensor, Note]]:
        """Remove and return the copies that have arrived; with `wait`, all of them."""
        arrived = []
        while self._reads and (wait or self._reads[0][0].has_arrived()):
            copy, note = self._reads.popleft()
            arrived.append((copy.read(), note))
        return arrived
