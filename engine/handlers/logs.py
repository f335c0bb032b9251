"""The log of a run: lines on the console and in `log.txt`, and a progress bar."""

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from ember_reid.engine.events import PendingReads, TrainingEvents, epoch_length, step_output
from ember_reid.engine.handlers.writers import MetricWriter
from ignite.engine import Engine, Events
from tqdm import tqdm

logger = logging.getLogger("ember.train")


class _ConsoleHandler(logging.Handler):
    """Writes lines above a progress bar; skips records that the bar shows (`in_bar`)."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "in_bar", False):
            return
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def setup_logging(log_file: Path | None = None, *, quiet: bool = False) -> None:
    """Log to standard output and append to `log_file`.

    Args:
        quiet: log errors only, for ranks above 0.
    """
    # Ignite logs errors that main.py reports.
    logging.getLogger("ignite").setLevel(logging.CRITICAL)
    # tqdm's default lock is a system semaphore, which a killed process would leave behind.
    tqdm.set_lock(threading.RLock())
    # A full disk is reported once, by the code that cannot continue without the file.
    logging.raiseExceptions = False
    root = logging.getLogger("ember")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.ERROR if quiet else logging.INFO)
    root.propagate = False
    # Only a terminal has a progress bar.
    is_terminal = sys.stderr.isatty()
    console = _ConsoleHandler() if is_terminal else logging.StreamHandler(sys.stdout)
    handlers: list[logging.Handler] = [console]
    if log_file is not None:
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        root.addHandler(handler)


@dataclass(frozen=True)
class _Period:
    """What is known about the iterations between two log lines before their losses arrive.

    Attributes:
        names: of the losses, and "acc".
        iteration: the last one.
        lr: the learning rate that is logged.
    """

    names: tuple[str, ...]
    epoch: int
    iteration: int
    epoch_length: int
    lr: float
    images_per_second: float
    seconds_left: float


class TrainLog:
    """Trainer, ITERATION_COMPLETED: logs the means over the last `period` iterations.

    They go to the log, to the metric writer and to the progress bar. Losses are summed on the
    device and copied to the host once per period. Unlike ignite's ProgressBar and output handlers,
    logging does not wait for the device: the means of a GPU are reported when they have arrived,
    usually one period late. BEFORE_SAVING and EPOCH_COMPLETED wait for the last ones, so that the
    files of a run contain everything before a checkpoint. Images per second include data loading
    but not evaluation. The processor time at the end of an epoch includes everything since the
    start of this process; on a shared machine, it is the clock of the speed run.

    Args:
        learning_rate: iteration -> the learning rate that is logged.
        show_bar: show a progress bar if standard error is a terminal.
        world_size: number of processes; each of them processes as many images as this one.
    """

    def __init__(
        self,
        learning_rate: Callable[[int], float],
        writer: MetricWriter,
        *,
        period: int,
        show_bar: bool,
        world_size: int = 1,
    ):
        self.learning_rate, self.writer, self.period = learning_rate, writer, period
        self.show_bar, self.world_size = show_bar and sys.stderr.isatty(), world_size
        self._bar: tqdm | None = None
        self._reads: PendingReads[_Period] = PendingReads()
        self._reset()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(TrainingEvents.BEFORE_SAVING, self._report_all)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)

    def _reset(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._iterations, self._images, self._start = 0, 0, time.perf_counter()

    def _start_epoch(self, engine: Engine) -> None:
        self._reset()
        self._epoch_start, self._epoch_images = time.perf_counter(), 0
        if self.show_bar:
            done = engine.state.iteration % epoch_length(engine)
            label = f"epoch {engine.state.epoch}/{engine.state.max_epochs}"
            self._bar = tqdm(
                total=epoch_length(engine),
                initial=done,
                desc=label,
                leave=False,
                file=sys.stderr,
            )

    def __call__(self, engine: Engine) -> None:
        output = step_output(engine)
        for name, value in {**output.losses, "acc": output.accuracy}.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._iterations += 1
        self._images += output.num_images * self.world_size
        self._epoch_images += output.num_images * self.world_size
        if self._bar is not None:
            self._bar.update()
        if engine.state.iteration % self.period == 0:
            self._end_period(engine)
            for means, period in self._reads.finished():
                self._report(means.tolist(), period)

    def _end_period(self, engine: Engine) -> None:
        state, length = engine.state, epoch_length(engine)
        seconds = time.perf_counter() - self._start
        num_left = (state.max_epochs or 0) * length - state.iteration
        period = _Period(
            names=tuple(self._sums),
            epoch=state.epoch,
            iteration=state.iteration,
            epoch_length=length,
            lr=self.learning_rate(state.iteration),
            images_per_second=self._images / seconds,
            seconds_left=num_left * seconds / self._iterations,
        )
        self._reads.start(torch.stack(list(self._sums.values())) / self._iterations, period)
        self._reset()

    def _report_all(self) -> None:
        """Report all periods up to now. Waits for the device."""
        for means, period in self._reads.finished(wait=True):
            self._report(means.tolist(), period)

    def _report(self, values: list[float], period: "_Period") -> None:
        means = dict(zip(period.names, values, strict=True))
        accuracy = means.pop("acc")
        loss, speed = sum(means.values()), period.images_per_second
        remaining = _clock(period.seconds_left)
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {loss:.3f}, acc {accuracy:.3f}, {speed:.0f} images/s, {remaining} left"
            )
        logger.info(
            "Epoch[%d] Iteration[%d/%d] Loss: %.3f (%s), Acc: %.3f, Base Lr: %.2e, %.0f images/s, "
            "%s left",
            period.epoch,
            (period.iteration - 1) % period.epoch_length + 1,
            period.epoch_length,
            loss,
            ", ".join(f"{name} {value:.3f}" for name, value in means.items()),
            accuracy,
            period.lr,
            speed,
            remaining,
            extra={"in_bar": self._bar is not None},
        )
        record = {"loss": loss, **means, "accuracy": accuracy, "lr": period.lr}
        record["images_per_second"] = speed
        self.writer.write("train", period.epoch, period.iteration, record)

    def _end_epoch(self, engine: Engine) -> None:
        self._report_all()
        if self._bar is not None:
            self._bar.close()
        seconds = time.perf_counter() - self._epoch_start
        logger.info(
            "Epoch %d/%d done in %s: %.0f images/s; processor time of the process: %s",
            engine.state.epoch,
            engine.state.max_epochs,
            _clock(seconds),
            self._epoch_images / max(seconds, 1e-9),
            _clock(time.process_time()),
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
