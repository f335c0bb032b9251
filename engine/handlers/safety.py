"""Early ends of a run: divergence, signals, and failures of the machine."""

import errno
import logging
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple

import ignite.distributed as idist
import torch
from ember_reid.config.messages import describe_exception
from ember_reid.engine.events import PendingReads, TrainingEvents, current_batch, step_output
from ignite.engine import Engine, Events

logger = logging.getLogger("ember.train")

# Sent by Ctrl-C, by schedulers, and when a terminal closes.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class NonFiniteLoss(ValueError):
    """A loss is NaN or infinite."""


class Interrupted(BaseException):
    """A signal stopped the run after `last.pt` was written."""

    def __init__(self, signal_number: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class _Recorded(NamedTuple):
    """The losses of an iteration, on the device, and the dataset indices of its batch."""

    iteration: int
    names: tuple[str, ...]
    values: torch.Tensor
    indices: torch.Tensor


class TerminateOnNan:
    """Trainer, ITERATION_COMPLETED: raises NonFiniteLoss for a NaN or infinite loss.

    Unlike ignite's TerminateOnNan, it does not wait for the device: every `period` iterations, the
    losses since the last copy are copied to the host together. Those of a GPU are checked when they
    have arrived, at the latest one period later. BEFORE_SAVING and COMPLETED wait for the last
    ones. The message contains the losses, the log the image files of the batch.

    Args:
        describe: dataset index -> the name of an image.
    """

    def __init__(self, describe: Callable[[int], str], *, period: int = 1):
        self.describe, self.period = describe, period
        self._recorded: list[_Recorded] = []
        self._reads: PendingReads[list[_Recorded]] = PendingReads()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(TrainingEvents.BEFORE_SAVING, self.check)
        engine.add_event_handler(Events.COMPLETED, self.check)

    def __call__(self, engine: Engine) -> None:
        iteration = engine.state.iteration
        losses, indices = step_output(engine).losses, current_batch(engine).indices
        # A copy: a captured step writes the losses of every iteration into the same tensors.
        values = torch.stack(list(losses.values())).float()
        self._recorded.append(_Recorded(iteration, tuple(losses), values, indices))
        if iteration % self.period == 0:
            self._start_reading()
            self._check_finished()

    def check(self) -> None:
        """Check all iterations up to now. Waits for the device."""
        self._start_reading()
        self._check_finished(wait=True)

    def _start_reading(self) -> None:
        recorded, self._recorded = self._recorded, []
        if recorded:
            self._reads.start(torch.stack([entry.values for entry in recorded]), recorded)

    def _check_finished(self, *, wait: bool = False) -> None:
        for values, recorded in self._reads.finished(wait=wait):
            for row, entry in zip(values, recorded, strict=True):
                if not torch.isfinite(row).all():
                    losses = dict(zip(entry.names, row.tolist(), strict=True))
                    self._fail(entry.iteration, losses, entry.indices)

    def _fail(self, iteration: int, losses: dict[str, float], indices: torch.Tensor) -> None:
        files = [self.describe(index) for index in indices.flatten().tolist()]
        logger.error("images of the batch at iteration %d: %s", iteration, " ".join(files))
        terms = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        raise NonFiniteLoss(
            f"the loss is not finite at iteration {iteration} ({terms}); the last good checkpoint "
            "is kept; try a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_EPOCHS, "
            "SOLVER.CLIP_NORM 5, or SOLVER.AMP_DTYPE bfloat16"
        )


class StopOnSignal:
    """Trainer and evaluators, ITERATION_COMPLETED: saves and raises Interrupted after a signal.

    The first SIGINT, SIGTERM or SIGHUP waits for the iteration to end. Another one more than a
    second later stops immediately (within a second it is the same one, sent by a terminal and by a
    launcher). Ranks agree every `period` iterations. They also agree after an evaluation, during
    which their numbers of batches may differ.

    Use it as a context manager: signals are received inside the `with` block only.

    Args:
        save: called with the trainer.
        evaluators: engines that run inside the trainer.
    """

    def __init__(
        self, save: Callable[[Engine], None], *, evaluators: Sequence[Engine] = (), period: int = 1
    ):
        self.save, self.evaluators, self.period = save, tuple(evaluators), period
        self.received = 0
        self._received_at = 0.0
        self._previous: dict[int, Any] = {}
        self._trainer: Engine | None = None

    def attach(self, engine: Engine) -> None:
        self._trainer = engine
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.period), self.check)
        single_process = idist.get_world_size() == 1
        for evaluator in self.evaluators:
            evaluator.add_event_handler(
                Events.ITERATION_COMPLETED if single_process else Events.COMPLETED, self.check
            )

    def __enter__(self) -> "StopOnSignal":
        for number in STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.received:
            if time.monotonic() - self._received_at > 1:
                raise KeyboardInterrupt
            return
        self.received, self._received_at = number, time.monotonic()
        logger.warning(
            "%s: finishing this iteration and saving; send it again to stop immediately",
            signal.Signals(number).name,
        )

    def check(self) -> None:
        """Save and stop if any rank has received a signal."""
        received = self.received
        if idist.get_world_size() > 1:
            received = int(idist.all_reduce(received, op="MAX"))
        if received and self._trainer is not None:
            self.save(self._trainer)
            idist.barrier()
            raise Interrupted(received)


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
# From torch, for tensors that processes share.
NO_SHARED_MEMORY = ("unable to resize file </torch_", "unable to write to file </torch_")
LOST_PEER = (
    "connection closed by peer",
    "connection reset by peer",
    "nccl error: remote process exited",
    "read error",
)


# Parts of CUDA's and NCCL's messages, and what they mean.
GPU_FAILURES = {
    "duplicate gpu detected": "two processes of this run use the same GPU: start one per GPU",
    "devices are busy or unavailable": (
        "another process has the GPU for itself: end it, or choose another GPU with "
        "CUDA_VISIBLE_DEVICES"
    ),
    "driver version is insufficient": (
        "the NVIDIA driver is older than the CUDA of this torch: update the driver, or install a "
        "torch for the CUDA version of the driver"
    ),
    "no kernel image is available": (
        "this torch has no kernels for this GPU: install a torch that supports it"
    ),
}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a GPU or of the machine was not sufficient."""
    return isinstance(error, MemoryError) or any(
        text in str(error).lower() for text in OUT_OF_MEMORY
    )


def explain_failure(error: RuntimeError | MemoryError, *, load: str) -> str:
    """One line about a failure of the machine and what to do; empty for a bug of the program.

    Args:
        load: what had to fit into memory: network, number and size of images.
    """
    reason = _first_line(error)
    if is_out_of_memory(error):
        return (
            f"out of memory with {load} ({reason}): raise SOLVER.ACCUMULATION_STEPS (the same "
            "batch in smaller parts), set SOLVER.FP16 True, DATALOADER.CACHE none or SOLVER.STEP "
            "eager (no memory pool of CUDA graphs), or lower "
            "SOLVER.IMS_PER_BATCH, TEST.IMS_PER_BATCH, INPUT.SIZE_TRAIN or TEST.MEMORY_GIB"
        )
    if "dataloader worker" in str(error).lower():
        return (
            f"a process that loads images ended ({reason}): --resume continues from the last "
            "checkpoint; if this happens again, DATALOADER.NUM_WORKERS 0 loads images without "
            "such processes"
        )
    for text, explanation in GPU_FAILURES.items():
        if text in str(error).lower():
            return f"{explanation} ({reason})"
    if any(text in str(error).lower() for text in NO_SHARED_MEMORY):
        return (
            f"the shared memory of this machine is full ({reason}): free some space in /dev/shm, "
            "or enlarge it (docker run --shm-size 1g)"
        )
    if any(text in str(error).lower() for text in LOST_PEER):
        return f"another process of this run ended, see its own message ({reason})"
    return ""


def describe_error(error: Exception) -> str:
    """The message of an error on one printable line, without the traceback of a loader process."""
    text = describe_exception(error)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text += "; free some space and continue with --resume"
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
