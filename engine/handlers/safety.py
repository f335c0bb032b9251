"""How a run ends when it does not end well: divergence, Ctrl-C, SIGTERM, failures of the machine."""

import errno
import logging
import signal
import time
from collections.abc import Callable, Sequence

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

logger = logging.getLogger("ember.train")


class Diverged(ValueError):
    """The loss is not a finite number any more."""


class Interrupted(BaseException):
    """A signal asked the run to stop, and `last.pt` was written."""

    def __init__(self, signal_number: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


class StopOnNan:
    """Trainer, ITERATION_COMPLETED: raises Diverged when a loss is NaN or infinite, with the terms and the batch's files.

    Reading a loss waits for the device, so only every `period`-th iteration looks, at all since the last time.

    Args:
        describe: dataset index -> the text that names an image.
    """

    def __init__(self, describe: Callable[[int], str], *, period: int = 1):
        self.describe, self.period = describe, period
        self._pending: list[tuple[int, dict, torch.Tensor]] = []

    def attach(self, engine: Engine, event=Events.ITERATION_COMPLETED) -> None:
        engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        state = engine.state
        self._pending.append((state.iteration, state.output.losses, state.batch.indices))
        if state.iteration % self.period == 0:
            self.check()

    def check(self) -> None:
        """Look at all iterations since the last check."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        values = (
            torch.stack([torch.stack(list(losses.values())) for _, losses, _ in pending])
            .float()
            .cpu()
        )
        for (iteration, losses, indices), row in zip(pending, values, strict=True):
            if not torch.isfinite(row).all():
                files = [self.describe(index) for index in indices.flatten().tolist()]
                logger.error("images of the batch at iteration %d: %s", iteration, " ".join(files))
                terms = ", ".join(
                    f"{name} {value:g}" for name, value in zip(losses, row.tolist(), strict=True)
                )
                raise Diverged(
                    f"the loss is not finite at iteration {iteration} ({terms}); the last good checkpoint is kept; try a "
                    "lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_EPOCHS, SOLVER.CLIP_NORM 5, or SOLVER.AMP_DTYPE bfloat16"
                )


class StopOnSignal:
    """Trainer, ITERATION_COMPLETED, and evaluators: after SIGINT or SIGTERM, calls `save(trainer)` and raises Interrupted.

    The first signal waits for the iteration to end; one more than a second later stops at once (within a second it is the
    same one, from the terminal and from a launcher). Ranks agree every `period` iterations and after an evaluation, in
    which their shares may differ by a batch; all of them leave when the file is written.
    """

    def __init__(self, save: Callable[[Engine], None], *, period: int = 1):
        self.save, self.period = save, period
        self.received = 0
        self._received_at = 0.0
        self._previous: dict[int, object] = {}
        self._trainer: Engine | None = None

    def attach(self, engine: Engine, evaluators: Sequence[Engine] = ()) -> None:
        self._trainer = engine
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.period), self.check)
        is_alone = idist.get_world_size() == 1
        for evaluator in evaluators:
            evaluator.add_event_handler(
                Events.ITERATION_COMPLETED if is_alone else Events.COMPLETED, self.check
            )

    def __enter__(self) -> "StopOnSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame) -> None:
        if self.received:
            if time.monotonic() - self._received_at > 1:
                raise KeyboardInterrupt
            return
        self.received, self._received_at = number, time.monotonic()
        logger.warning(
            "%s: finishing this iteration and saving; once more to stop at once",
            signal.Signals(number).name,
        )

    def check(self) -> None:
        """Save and stop when any rank has received a signal."""
        received = self.received
        if idist.get_world_size() > 1:
            received = int(idist.all_reduce(received, op="MAX"))
        if received:
            self.save(self._trainer)
            idist.barrier()
            raise Interrupted(received)


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
LOST_PEER = (
    "connection closed by peer",
    "connection reset by peer",
    "nccl error: remote process exited",
    "read error",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the machine had no room for what was asked of it."""
    return isinstance(error, MemoryError) or any(
        text in str(error).lower() for text in OUT_OF_MEMORY
    )


def explain_failure(error: RuntimeError | MemoryError, *, load: str) -> str:
    """One sentence about a failure that is the machine's, with what to do; empty for any other, which is a fault of ours.

    Args:
        load: what the memory had to hold: the network, how many images, of which size.
    """
    reason = _first_line(error)
    if is_out_of_memory(error):
        return (
            f"out of memory with {load} ({reason}): raise SOLVER.ACCUMULATION_STEPS (the same batch in "
            "smaller parts), set SOLVER.FP16 True or DATALOADER.CACHE none, or lower SOLVER.IMS_PER_BATCH, "
            "TEST.IMS_PER_BATCH, INPUT.SIZE_TRAIN or TEST.MEMORY_GIB"
        )
    if "dataloader worker" in str(error).lower():
        return (
            f"a process that loads images ended ({reason}): --resume goes on from the last checkpoint; if it comes again, "
            "DATALOADER.NUM_WORKERS 0 loads without such processes"
        )
    if any(text in str(error).lower() for text in LOST_PEER):
        return f"another process of this run ended, its own message says why ({reason})"
    return ""


def describe_error(error: Exception) -> str:
    """The message of an error on one line; of one that a loader process hands on, the message without its traceback."""
    text = str(error) or type(error).__name__
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text += "; make room and go on with --resume: the last checkpoint is whole"
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
