"""Handlers that end a run in order: divergence, Ctrl-C, SIGTERM."""

import logging
import signal
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
        values = torch.stack([torch.stack(list(losses.values())) for _, losses, _ in pending]).float().cpu()
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

    The first signal waits for the iteration to end; a second one stops at once. Ranks agree every `period` iterations.
    """

    def __init__(self, save: Callable[[Engine], None], *, period: int = 1):
        self.save, self.period = save, period
        self.received = 0
        self._previous: dict[int, object] = {}
        self._trainer: Engine | None = None

    def attach(self, engine: Engine, evaluators: Sequence[Engine] = ()) -> None:
        self._trainer = engine
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        for evaluator in evaluators:
            evaluator.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __enter__(self) -> "StopOnSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame) -> None:
        self.received = number
        logger.warning(
            "%s: finishing this iteration and saving; once more to stop at once", signal.Signals(number).name
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def __call__(self, engine: Engine) -> None:
        received = self.received
        if idist.get_world_size() > 1:
            if engine.state.iteration % self.period:
                return
            received = int(idist.all_reduce(received, op="MAX"))
        if received:
            self.save(self._trainer)
            raise Interrupted(received)
