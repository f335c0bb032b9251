"""Compare the two forms of the softmax-weighted triplet loss at the start of a training.

    python -m tools.benchmark triplet -c quickstart/people --every 5 --iterations 10

Trains twice from the same weights with the same batches: LOSS.TRIPLET.MINING weighted with FORM
published and with FORM exact. The other settings are those of the recipe.

    loss       of the triplets, weighted
    gradient   norm of its gradient by the features of the batch
    d_ap, d_an weighted distances to positives and to negatives, which the loss compares
    positives, negatives   mean distances of all pairs of the batch
"""

import argparse
import tempfile
from dataclasses import dataclass

import torch
from ember_reid.config import Config, load_config
from ember_reid.data.batch import Batch
from ember_reid.data.loader_processes import loader_processes
from ember_reid.engine.build import build_device
from ember_reid.engine.handlers.build import build_control, build_handlers
from ember_reid.engine.run.build import build_training_run, seed_everything
from ember_reid.layers import triplet_loss
from ember_reid.layers.numerics import euclidean_distances
from ember_reid.layers.triplet import FORMS, weighted_distances
from ember_reid.modeling.output import ReidOutput
from ember_reid.tools.common.cli import Command, add_overrides, echo
from ignite.engine import Events
from torch import Tensor, nn

COLUMNS = ("loss", "gradient", "d_ap", "d_an", "positives", "negatives")


@dataclass(frozen=True)
class Row:
    """Measurements of one batch; see the description of this command."""

    loss: float
    gradient: float
    d_ap: float
    d_an: float
    positives: float
    negatives: float


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", required=True, help="a recipe, see configs/"
    )
    parser.add_argument(
        "--iterations", type=int, default=200, help="of each training (default: %(default)s)"
    )
    parser.add_argument(
        "--every", type=int, default=50, help="iterations between rows (default: %(default)s)"
    )
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    if options.iterations < 0 or options.every < 1:
        raise ValueError(
            f"--iterations is {options.iterations} and --every {options.every}; at least 0 and 1 "
            "are needed"
        )
    echo(f"{'form':<9} {'iteration':>9} " + " ".join(f"{name:>9}" for name in COLUMNS))
    for form in FORMS[::-1]:
        with tempfile.TemporaryDirectory() as folder:
            words = ("LOSS.TRIPLET.MINING", "weighted", "LOSS.TRIPLET.FORM", form)
            quiet = ("LOG.TO", "()", "LOG.PROGRESS", "False", "SOLVER.EVAL_PERIOD", "1000000000")
            cfg = load_config(
                options.config, (*options.overrides, *words, *quiet, "OUTPUT_DIR", folder)
            )
            rows = measure_start(cfg, iterations=options.iterations, every=options.every)
        for iteration, row in rows.items():
            values = " ".join(f"{getattr(row, name):9.4g}" for name in COLUMNS)
            echo(f"{form:<9} {iteration:9d} {values}")


def measure_start(cfg: Config, *, iterations: int, every: int) -> dict[int, Row]:
    """Train, and measure the batches before iterations 0, `every`, ... up to `iterations`.

    Raises:
        ValueError: the training of the recipe is shorter.
    """
    if cfg.NUM_THREADS:
        torch.set_num_threads(cfg.NUM_THREADS)
    seed_everything(cfg)
    run = build_training_run(cfg, build_device(cfg), evaluate=False)
    total = cfg.SOLVER.MAX_EPOCHS * len(run.train_loader)
    if iterations + 1 >= total:
        raise ValueError(f"--iterations is {iterations}; the training has only {total} iterations")
    for handler in build_handlers(run, build_control(run)):
        handler.attach(run.trainer)
    rows: dict[int, Row] = {}

    def record(_: nn.Module, inputs: tuple[ReidOutput, Batch], losses: dict[str, Tensor]) -> None:
        iteration = run.trainer.state.iteration - 1
        if iteration % every == 0:
            output, batch = inputs
            rows[iteration] = measure_batch(cfg, output.features[0].detach(), batch.pids)

    run.criterion.register_forward_hook(record)
    last = Events.ITERATION_COMPLETED(once=iterations + 1)
    run.trainer.add_event_handler(last, lambda engine: engine.terminate())
    with run.writers.opened(), loader_processes(run.train_loader):
        run.trainer.run(run.train_loader, max_epochs=cfg.SOLVER.MAX_EPOCHS)
    return rows


def measure_batch(cfg: Config, features: Tensor, pids: Tensor) -> Row:
    """The measurements of features [B, D]; no gradient reaches the network."""
    features = features.float().requires_grad_()
    options = cfg.LOSS.TRIPLET
    loss = triplet_loss(features, pids, margin=options.MARGIN, mining="weighted", form=options.FORM)
    (gradient,) = torch.autograd.grad(loss, features)
    with torch.no_grad():
        distances = euclidean_distances(features, features)
        positive = pids[:, None] == pids
        d_ap, d_an = weighted_distances(distances, positive, ~positive, form=options.FORM)
        other = positive & ~torch.eye(len(pids), dtype=torch.bool, device=pids.device)
        values = (loss, gradient.norm(), d_ap.mean(), d_an.mean())
        means = (distances[other].mean(), distances[~positive].mean())
    return Row(*(value.item() for value in (*values, *means)))


main = Command("benchmark triplet", __doc__ or "", add_options, run).main
