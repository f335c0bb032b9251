"""What a person sees of a run: log lines, a progress bar, and sinks that keep the numbers.

A sink is a callable (what, epoch, iteration, values): what is "train" or "test/<dataset>", values are plain numbers.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from tqdm import tqdm

logger = logging.getLogger("ember.train")
Sink = Callable[[str, int, int, Mapping[str, float]], None]


class _ConsoleHandler(logging.Handler):
    """Writes lines above a running progress bar instead of through it, and leaves out what the bar shows (`in_bar`)."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "in_bar", False):
            return
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def setup_logging(log_file: Path | None = None, *, quiet: bool = False) -> None:
    """Send what the program logs to standard output and, appended, to `log_file`; `quiet` is for ranks above 0."""
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # it reports errors that main.py reports
    tqdm.set_lock(
        threading.RLock()
    )  # its own one is a semaphore of the system, which a process that is killed leaves behind
    logging.raiseExceptions = False  # a full disk is reported once, by what cannot do without it
    root = logging.getLogger("ember")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.ERROR if quiet else logging.INFO)
    root.propagate = False
    handlers: list[logging.Handler] = [_ConsoleHandler()]
    if log_file is not None:
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        root.addHandler(handler)


class MetricsFile:
    """A sink: one JSON object a line in `metrics.jsonl`. A resumed run first drops what lies after its starting point."""

    def __init__(self, path: Path, *, resumed_iteration: int | None = None):
        self.path = path
        if resumed_iteration is not None and path.exists():
            kept = [
                line
                for line in path.read_text().splitlines()
                if _iteration_of(line) <= resumed_iteration
            ]
            path.write_text("".join(f"{line}\n" for line in kept))

    def __call__(self, what: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        entry = {"what": what, "epoch": epoch, "iteration": iteration, "values": dict(values)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _iteration_of(line: str) -> float:
    """The iteration of an entry; a line that a killed run left half-written counts as the future."""
    try:
        return json.loads(line)["iteration"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")


def create_tensorboard_sink(folder: Path, *, resumed_iteration: int | None = None) -> Sink:
    """Curves for `tensorboard --logdir OUTPUT_DIR`."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=resumed_iteration)

    def sink(what: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(f"{what}/{name}", value, iteration)
        writer.flush()

    return sink


class TrainLog:
    """Trainer, ITERATION_COMPLETED: means over the last `period` iterations as a log line, to the sinks and to the bar.

    Losses are summed on the device and read back once a period, so logging never waits for the device in between. Images per
    second count everything from one reading to the next but evaluation, loading included.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        sinks: Sequence[Sink],
        *,
        period: int,
        bar: bool,
        images_factor: int = 1,
    ):
        self.optimizer, self.sinks, self.period = optimizer, sinks, period
        self.show_bar, self.images_factor = bar and sys.stderr.isatty(), images_factor
        self._bar: tqdm | None = None
        self._reset()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)

    def _reset(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._iterations, self._images, self._start = 0, 0, time.perf_counter()

    def _start_epoch(self, engine: Engine) -> None:
        self._reset()
        self._epoch_start, self._epoch_images = time.perf_counter(), 0
        if self.show_bar:
            done = engine.state.iteration % engine.state.epoch_length
            label = f"epoch {engine.state.epoch}/{engine.state.max_epochs}"
            self._bar = tqdm(
                total=engine.state.epoch_length,
                initial=done,
                desc=label,
                leave=False,
                file=sys.stderr,
            )

    def __call__(self, engine: Engine) -> None:
        output = engine.state.output
        for name, value in {**output.losses, "acc": output.accuracy}.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._iterations += 1
        self._images += output.num_images * self.images_factor
        self._epoch_images += output.num_images * self.images_factor
        if self._bar is not None:
            self._bar.update()
        if engine.state.iteration % self.period == 0:
            self._report(engine)

    def _report(self, engine: Engine) -> None:
        state = engine.state
        means = dict(
            zip(
                self._sums,
                (torch.stack(list(self._sums.values())) / self._iterations).tolist(),
                strict=True,
            )
        )
        accuracy = means.pop("acc")
        loss = sum(means.values())
        seconds = time.perf_counter() - self._start
        speed = self._images / seconds
        remaining = (
            (state.max_epochs * state.epoch_length - state.iteration) * seconds / self._iterations
        )
        lr = self.optimizer.param_groups[0]["lr"]
        terms = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
        line = f"Loss: {loss:.3f} ({terms}), Acc: {accuracy:.3f}, Base Lr: {lr:.2e}, {speed:.0f} images/s"
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {loss:.3f}, acc {accuracy:.3f}, {speed:.0f} images/s, {_clock(remaining)} left"
            )
        done = (state.iteration - 1) % state.epoch_length + 1
        place = f"Epoch[{state.epoch}] Iteration[{done}/{state.epoch_length}]"
        in_bar = {"in_bar": self._bar is not None}
        logger.info("%s %s, %s left", place, line, _clock(remaining), extra=in_bar)
        values = {"loss": loss, **means, "accuracy": accuracy, "lr": lr, "images_per_second": speed}
        for sink in self.sinks:
            sink("train", state.epoch, state.iteration, values)
        self._reset()

    def _end_epoch(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.close()
        seconds = time.perf_counter() - self._epoch_start
        logger.info(
            "Epoch %d/%d done in %s: %.0f images/s",
            engine.state.epoch,
            engine.state.max_epochs,
            _clock(seconds),
            self._epoch_images / max(seconds, 1e-9),
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
