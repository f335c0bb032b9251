"""Measure training: images per second end to end, of the step alone, and of the loader alone.

    python -m tools.benchmark train -c quickstart/people --iterations 50

Everything is built by the functions that main.py calls. Checkpoints go to a temporary folder;
nothing is evaluated.

    loader      fetch, move to the device, augment; a captured step does the last two itself
    step        forward, losses, backward, optimizer; repeated on one batch in memory
    end to end  all handlers: loader, schedule, checks, logs, checkpoints
    waiting     share of the time in which the device is idle: 1 - end to end / step
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from ember_reid.config import Config, load_config
from ember_reid.data.loader_processes import loader_processes
from ember_reid.engine.build import build_device
from ember_reid.engine.events import TrainingEvents
from ember_reid.engine.graph.build import build_trainer
from ember_reid.engine.handlers.batch import ToDevice
from ember_reid.engine.handlers.build import build_control, build_handlers
from ember_reid.engine.machine import (
    choose_cpu_precision,
    choose_num_threads,
    describe_cpu_precision,
)
from ember_reid.engine.run.build import TrainingRun, build_training_run, seed_everything
from ember_reid.tools.common.cli import Command, add_overrides, echo
from ignite.engine import Engine, Events

MIB = 2**20


@dataclass(frozen=True)
class Speeds:
    """Measurements of a training run."""

    end_to_end: float
    step: float
    loader: float
    first_step: float
    memory: float

    @property
    def waiting(self) -> float:
        return max(0.0, 1 - self.end_to_end / self.step)


@dataclass(frozen=True)
class Combination:
    """Precision, convolutions (SOLVER.CPU_CONVOLUTIONS) and memory format of a step on a CPU."""

    precision: str
    convolutions: str
    memory_format: torch.memory_format

    def words(self) -> tuple[str, ...]:
        """The keys and values of this combination."""
        keys = "SOLVER.CPU_PRECISION", "SOLVER.CPU_CONVOLUTIONS"
        return keys[0], self.precision, keys[1], self.convolutions

    def describe(self) -> str:
        """The columns of the table."""
        name = str(self.memory_format).removeprefix("torch.").removesuffix("_format")
        return f"{self.precision:<8} {self.convolutions:<5} {name:<13}"


# The first one of each precision is the default.
COMBINATIONS = (
    Combination("float32", "fast", torch.channels_last),
    Combination("float32", "torch", torch.channels_last),
    Combination("float32", "torch", torch.contiguous_format),
    Combination("bfloat16", "torch", torch.channels_last),
    Combination("bfloat16", "torch", torch.contiguous_format),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", required=True, help="a recipe, see configs/"
    )
    parser.add_argument(
        "--iterations", type=int, default=30, help="timed iterations (default: %(default)s)"
    )
    parser.add_argument(
        "--warmup",
        type=int,
        default=5,
        help="untimed iterations before them (default: %(default)s)",
    )
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure the CPU time of this process instead of elapsed time, for a busy CPU",
    )
    parser.add_argument(
        "--all-precisions",
        action="store_true",
        help="on a CPU: compare precisions, convolutions, memory formats, and one thread with all",
    )
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    if options.iterations < 1 or options.warmup < 0:
        raise ValueError(
            f"--iterations is {options.iterations} and --warmup {options.warmup}; at least 1 and 0 "
            "are needed"
        )
    clock = time.process_time if options.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        # Enough iterations, but few enough that computing all learning rates in advance is fast.
        endless = (
            "SOLVER.MAX_EPOCHS",
            "10000",
            "SOLVER.EVAL_PERIOD",
            "10000",
            "LOG.TO",
            "()",
            "OUTPUT_DIR",
            folder,
        )
        words = (*options.overrides, *endless)
        cfg = load_config(options.config, words)
        time_of = partial(
            measure, iterations=options.iterations, warmup=options.warmup, clock=clock
        )
        if options.all_precisions:
            return compare_combinations(options.config, words, time_of)
        speeds = time_of(cfg)
    height, width = cfg.INPUT.SIZE_TRAIN
    place = (
        torch.cuda.get_device_name()
        if build_device(cfg).type == "cuda"
        else f"CPU, {torch.get_num_threads()} thread(s)"
    )
    echo(
        f"{options.config}: {cfg.MODEL.BACKBONE.NAME} {height}x{width}, batch "
        f"{cfg.SOLVER.IMS_PER_BATCH}, {cfg.SOLVER.AMP_DTYPE if cfg.SOLVER.FP16 else 'float32'}, "
        f"torch {torch.__version__}, {place}, {options.iterations} iterations"
    )
    echo(f"end to end {speeds.end_to_end:10.1f} images/s")
    echo(f"step       {speeds.step:10.1f} images/s")
    echo(f"loader     {speeds.loader:10.1f} images/s")
    echo(f"first step {speeds.first_step:10.2f} s after the start, without imports")
    echo(f"memory     {speeds.memory:10.0f} MiB at the peak")
    echo(f"waiting    {speeds.waiting:10.1%}")


def compare_combinations(recipe: str, words: Sequence[str], time_of: Callable[..., Speeds]) -> None:
    """Print the speed of the step for each combination on the CPU, and how fast the chosen one is.

    Args:
        words: keys and values that override the recipe.
        time_of: (configuration, memory_format=) -> measurements of its training.
    """
    threads = torch.get_num_threads()
    precision = choose_cpu_precision("auto")
    echo(f"SOLVER.CPU_PRECISION auto is {describe_cpu_precision(precision)}")
    chosen = next(entry for entry in COMBINATIONS if entry.precision == precision)
    default = chosen, choose_num_threads(0)
    speeds: dict[tuple[Combination, int], float] = {}
    try:
        for count in sorted({1, threads}):
            for entry in COMBINATIONS:
                keys = ("DEVICE", "cpu", "SOLVER.FP16", "True", "NUM_THREADS", str(count))
                cfg = load_config(recipe, (*words, *keys, *entry.words()))
                speed = time_of(cfg, memory_format=entry.memory_format).step
                speeds[entry, count] = speed
                note = "   the default" if (entry, count) == default else ""
                echo(f"{entry.describe()} {count:>3} thread(s) {speed:10.1f} images/s{note}")
    finally:
        torch.set_num_threads(threads)
    best = max(speeds, key=lambda key: speeds[key])
    share = speeds[default] / speeds[best]
    echo(f"the default has {share:.0%} of the speed of the best combination")


def measure(
    cfg: Config,
    *,
    iterations: int,
    warmup: int,
    clock: Callable[[], float],
    memory_format: torch.memory_format = torch.channels_last,
) -> Speeds:
    """Build the training of a recipe and time it."""
    started = clock()
    device = build_device(cfg)
    seed_everything(cfg)
    run = build_training_run(cfg, device, evaluate=False)
    run.model.to(memory_format=memory_format)
    for handler in build_handlers(run, build_control(run)):
        handler.attach(run.trainer)
    trainer, loader = run.trainer, run.train_loader
    first_step: list[float] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=1), lambda: first_step.append(clock() - started)
    )
    time_run = partial(
        time_iterations, iterations=iterations, warmup=warmup, clock=clock, device=device
    )
    images = cfg.SOLVER.IMS_PER_BATCH
    with run.writers.opened(), loader_processes(loader):
        end_to_end = images / time_run(trainer, loader)
        fetcher, stepper = _create_parts(run)
        seconds = time_run(fetcher, loader)
    step = images / time_run(stepper, [fetcher.state.output] * (iterations + warmup))
    return Speeds(end_to_end, step, images / seconds, first_step[0], _peak_memory(device))


def _create_parts(run: TrainingRun) -> tuple[Engine, Engine]:
    """Two engines: one only fetches and prepares batches, the other repeats the step.

    A captured step gathers and augments images itself, so its loader only selects rows.
    """
    fetcher = Engine(lambda engine, batch: engine.state.batch)
    if run.captured is not None:
        stepper = Engine(run.captured)
        stepper.register_events(*TrainingEvents)
        return fetcher, stepper
    ToDevice(run.device).attach(fetcher)
    run.parts.augment.attach(fetcher)
    stepper = build_trainer(
        run.cfg,
        run.model,
        run.criterion,
        run.optimizers,
        scaler=run.parts.scaler,
        device=run.device,
    )
    return fetcher, stepper


def time_iterations(
    engine: Engine,
    batches,
    *,
    iterations: int,
    warmup: int,
    clock: Callable[[], float],
    device: torch.device,
) -> float:
    """Seconds per iteration after the warm-up."""
    marks: list[float] = []

    def mark() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        marks.append(clock())

    # The number of this event is that of the iterations before it.
    started = Events.GET_BATCH_STARTED(event_filter=lambda _, number: number == warmup)
    engine.add_event_handler(started, mark)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=warmup + iterations), mark)
    engine.add_event_handler(
        Events.ITERATION_COMPLETED(once=warmup + iterations), lambda e: e.terminate()
    )
    engine.run(batches, max_epochs=1000000, epoch_length=len(batches))
    return (marks[-1] - marks[0]) / iterations


def _peak_memory(device: torch.device) -> float:
    """MiB: allocated on a GPU; of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    # KiB on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)


main = Command("benchmark train", __doc__ or "", add_options, run).main
