"""Measure the host time of an iteration whose step is captured. No GPU is needed.

    python -m tools.benchmark host -c quickstart/people --iterations 200

The graph is replaced by one that computes nothing. What remains is the work of the host: sampler,
random numbers, the ring buffer, handlers and logs. The device is the CPU, so launching a graph and
a copy to a GPU are not included.
"""

import argparse
import statistics
import tempfile
import time

import torch
from ember_reid.config import Config, load_config
from ember_reid.data.loader_processes import loader_processes
from ember_reid.engine.graph.capture import Function
from ember_reid.engine.handlers.build import build_control, build_handlers
from ember_reid.engine.run.build import build_training_run
from ember_reid.tools.common.cli import Command, add_overrides, echo
from ignite.engine import Engine, Events

# Iterations in front of the measured ones.
_WARMUP = 10


class NoKernels:
    """A backend of `GraphRunner` that executes nothing."""

    def run(self, function: Function) -> None:
        """Skip the function."""

    def capture(self, function: Function) -> Function:
        """A graph that does nothing."""
        return lambda: None

    def recover(self) -> None:
        """Nothing to do."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="a recipe")
    parser.add_argument(
        "--iterations", type=int, default=200, help="timed iterations (default: %(default)s)"
    )
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        ValueError: fewer than two iterations, or a step that cannot be captured.
    """
    if options.iterations < 2:
        raise ValueError(f"--iterations is {options.iterations}; at least 2 are needed")
    with tempfile.TemporaryDirectory() as folder:
        fixed = ("DEVICE", "cpu", "SOLVER.STEP", "auto", "LOG.TO", "()", "OUTPUT_DIR", folder)
        names = ("MAX_EPOCHS", "EVAL_PERIOD", "CHECKPOINT_PERIOD")
        periods = [word for name in names for word in (f"SOLVER.{name}", "10000")]
        words = ("DATALOADER.CACHE", "ram", *options.overrides, *fixed, *periods)
        cfg = load_config(options.config, words)
        seconds = measure(cfg, iterations=options.iterations)
    lower, median, upper = (1000 * value for value in statistics.quantiles(seconds, n=4))
    echo(
        f"{options.config}: batch {cfg.SOLVER.IMS_PER_BATCH}, {len(seconds)} iterations, one thread"
    )
    echo(f"host {median:10.3f} ms an iteration   quartiles {lower:.3f} to {upper:.3f}")


def measure(cfg: Config, *, iterations: int) -> list[float]:
    """CPU seconds of the main thread for each iteration."""
    torch.set_num_threads(1)
    run = build_training_run(
        cfg, torch.device("cpu"), pretrained=False, evaluate=False, rehearse=True
    )
    if run.captured is None:
        raise ValueError("the step of this recipe cannot be captured; the log gives the reason")
    run.captured.runner.backend = NoKernels()
    trainer, loader = run.trainer, run.train_loader
    marks: list[float] = []
    for handler in build_handlers(run, build_control(run)):
        handler.attach(trainer)

    def mark(engine: Engine) -> None:
        marks.append(time.thread_time())
        if len(marks) > _WARMUP + iterations:
            engine.terminate(True)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, mark)
    with run.writers.opened(), loader_processes(loader):
        trainer.run(loader, cfg.SOLVER.MAX_EPOCHS, epoch_length=len(loader))
    times = marks[_WARMUP:]
    return [after - before for before, after in zip(times, times[1:], strict=False)]


main = Command("benchmark host", __doc__ or "", add_options, run).main
