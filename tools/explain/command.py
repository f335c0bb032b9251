"""Explain a recipe: what is trained, with which losses and schedule, and its cost.

    python -m tools.explain quickstart
    python -m tools.explain market1501/bot_R50 --against market1501/sbs_R50

The learning rate is plotted over the epochs. --against lists all settings that differ.
"""

import argparse
from collections.abc import Iterator

from ember_reid.config import Config, load_config
from ember_reid.config.recipe_headers import header_chain
from ember_reid.data.build import build_splits, build_train_loader
from ember_reid.modeling import build_model
from ember_reid.solver import build_schedule
from ember_reid.tools.common.cli import Command, add_overrides, echo
from ember_reid.tools.explain.cost import measure_cost
from ember_reid.tools.explain.description import describe, describe_score
from ember_reid.tools.explain.differences import find_differences

BARS = "▁▂▃▄▅▆▇█"
CHART_COLUMNS = 60
# Number of classes if the dataset is not on this machine: the identities of Market-1501.
DEFAULT_CLASSES = 751


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe file or the name of one")
    parser.add_argument("--against", metavar="OTHER", help="list the differences to this recipe")
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    for line in explain(options.recipe, options.overrides, against=options.against):
        echo(line)


def explain(recipe: str, overrides: list[str], *, against: str | None = None) -> Iterator[str]:
    """The lines of an explanation, or of a comparison if `against` names another recipe."""
    cfg = load_config(recipe, overrides)
    if against is not None:
        yield from _compare(cfg, load_config(against, overrides), names=(recipe, against))
        return
    num_classes, iterations = _training_data(cfg)
    network = build_model(cfg, num_classes=num_classes, pretrained=False)
    cost = measure_cost(network, tuple(cfg.INPUT.SIZE_TRAIN))
    sections = describe(cfg, cost=cost, iterations=iterations)
    for section in (*sections, describe_score(header_chain(recipe))):
        yield section.title
        yield from (f"  {line}" for line in section.lines)
    yield f"Learning rate, epochs 0 to {cfg.SOLVER.MAX_EPOCHS}"
    yield f"  {draw_learning_rate(cfg)}"


def _training_data(cfg: Config) -> tuple[int, int | None]:
    """Numbers of identities and of iterations per epoch (None without the dataset)."""
    try:
        data = build_splits(cfg)
        overrides = cfg.clone()
        overrides.defrost()
        overrides.DATALOADER.CACHE = "none"
        loader = build_train_loader(overrides, data.train)
    except OSError:
        return DEFAULT_CLASSES, None
    return data.num_classes, len(loader)


def draw_learning_rate(cfg: Config) -> str:
    """Plot the learning rate over the epochs as a line of block characters."""
    epochs, per_epoch = cfg.SOLVER.MAX_EPOCHS, 100
    factor = build_schedule(cfg, per_epoch)
    total = epochs * per_epoch
    factors = [
        factor(max(1, round((column + 0.5) / CHART_COLUMNS * total)))
        for column in range(CHART_COLUMNS)
    ]
    highest = max(factors)
    levels = [round(value / highest * (len(BARS) - 1)) for value in factors]
    return "".join(BARS[level] for level in levels)


def _compare(first: Config, second: Config, *, names: tuple[str, str]) -> Iterator[str]:
    differences = find_differences(first, second)
    if not differences:
        yield f"{names[0]} and {names[1]} have the same training settings"
        return
    width = max(len(difference.key) for difference in differences)
    yield f"{'':{width}}  {names[0]}  ->  {names[1]}"
    for difference in differences:
        yield f"{difference.key:{width}}  {difference.first}  ->  {difference.second}"


main = Command("explain", __doc__ or "", add_options, run).main
