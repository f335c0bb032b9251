"""Measure what distillation adds to a training step.

    python -m tools.benchmark distill -c quickstart/logits

Everything is built by the functions that main.py calls. All steps use one batch in memory. The
three measurements alternate, so that other load on the machine affects all of them.

    plain       the student's step without the KD section
    distilled   the teachers' forward passes, then the student's step with all losses
    teachers    the teachers' forward passes alone, as separate networks in evaluation mode
    overhead    distilled - plain - teachers: the cost of the losses, minus the time
                optimized teachers save
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import cast

import torch
from ember_reid.config import Config, load_config
from ember_reid.data.loader_processes import loader_processes
from ember_reid.engine.build import build_amp_dtype, build_device
from ember_reid.engine.distill.handlers import ViewSubsample
from ember_reid.engine.graph.build import build_trainer
from ember_reid.engine.handlers.batch import ToDevice
from ember_reid.engine.losses.build import build_criterion
from ember_reid.engine.run.build import (
    TrainingRun,
    build_run_optimizers,
    build_training_run,
)
from ember_reid.tools.common.cli import Command, add_overrides, echo
from ignite.engine import Engine

# Untimed rounds at the start.
WARMUP = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", required=True, help="a recipe with a KD section"
    )
    parser.add_argument(
        "--rounds", type=int, default=20, help="timed rounds (default: %(default)s)"
    )
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    if options.rounds < 2:
        raise ValueError(f"--rounds is {options.rounds}; at least 2 are needed")
    with tempfile.TemporaryDirectory() as folder:
        one_batch = (
            "DATALOADER.CACHE",
            "none",
            "DATALOADER.NUM_WORKERS",
            "0",
            "SOLVER.STEP",
            "eager",
            "OUTPUT_DIR",
            folder,
        )
        cfg = load_config(options.config, (*options.overrides, *one_batch))
        if cfg.NUM_THREADS:
            torch.set_num_threads(cfg.NUM_THREADS)
        times = measure(cfg, rounds=options.rounds)
    medians = {}
    for name, values in times.items():
        lower, medians[name], upper = (1000 * value for value in statistics.quantiles(values, n=4))
        echo(f"{name:<10}{medians[name]:10.2f} ms   quartiles {lower:.2f} to {upper:.2f}")
    parts = medians["plain"] + medians["teachers"]
    overhead = medians["distilled"] - parts
    echo(f"{'overhead':<10}{overhead:10.2f} ms   {overhead / parts:+.1%} of plain + teachers")


def measure(cfg: Config, *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round by name.

    Raises:
        ValueError: a recipe without teachers.
    """
    torch.manual_seed(cfg.SEED)
    device = build_device(cfg)
    amp_dtype = build_amp_dtype(cfg, device)
    run = build_training_run(cfg, device, evaluate=False)
    model, distillation = run.model, run.distillation
    averages = [average.teacher.model for average in distillation.state.values()]
    teachers = [*averages, *(entry.model.eval() for entry in distillation.teachers)]
    if not teachers:
        raise ValueError(
            "the recipe has no teacher: KD.TEACHERS is empty and KD.EMA.ENABLED is False"
        )
    batch = _load_batch(run)
    plain_criterion = build_criterion(
        cfg, num_classes=run.data.num_classes, feature_dim=cast(int, model.head.dim)
    ).to(device)
    plain_optimizers = build_run_optimizers(cfg, model, plain_criterion)

    @torch.no_grad()
    def run_teachers() -> None:
        with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            for teacher in teachers:
                teacher(batch.images)

    plain = build_trainer(
        cfg, model, plain_criterion, plain_optimizers, scaler=run.parts.scaler, device=device
    )
    distilled = run.trainer
    for handler in distillation.handlers:
        handler.attach(distilled)
    if 0 < cfg.KD.STUDENT_VIEWS < cfg.INPUT.NUM_FRAMES:
        views = ViewSubsample(cfg.KD.STUDENT_VIEWS, num_frames=cfg.INPUT.NUM_FRAMES, seed=cfg.SEED)
        views.attach(plain)
    return _time_alternately(
        {
            "plain": lambda: plain.run([batch], max_epochs=1),
            "distilled": lambda: distilled.run([batch], max_epochs=1),
            "teachers": run_teachers,
        },
        rounds=rounds,
        device=device,
    )


def _load_batch(run: TrainingRun):
    """The first training batch, augmented, on the device."""
    fetcher = Engine(lambda engine, batch: engine.state.batch)
    ToDevice(run.device).attach(fetcher)
    run.parts.augment.attach(fetcher)
    with loader_processes(run.train_loader):
        return fetcher.run(run.train_loader, max_epochs=1, epoch_length=1).output


def _time_alternately(
    actions: dict[str, Callable[[], object]], *, rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each action in each round, after the warm-up."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(WARMUP + rounds):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= WARMUP:
                times[name].append(time.perf_counter() - start)
    return times


main = Command("benchmark distill", __doc__ or "", add_options, run).main
