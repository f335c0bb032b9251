"""Explain a recipe: what is trained, with which losses and schedule, and its cost.

    python -m tools.explain quickstart
    python -m tools.explain market1501/bot_R50 --against market1501/sbs_R50

The learning rate is plotted over the epochs. --against lists all settings that differ.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from ember_reid.config import Config, load_config
from ember_reid.config.recipe_headers import header_chain
from ember_reid.data.build import build_splits, build_train_loader
from ember_reid.engine.handlers.resizing import resized_sizes
from ember_reid.modeling import build_model
from ember_reid.solver import build_schedule
from ember_reid.tools.common.cli import Command, add_overrides, echo
from ember_reid.tools.explain.cost import mean_training_flops, measure_cost
from ember_reid.tools.explain.description import Section, describe, describe_score
from ember_reid.tools.explain.differences import Difference, find_differences
from ember_reid.tools.explain.page import write_page

BARS = "▁▂▃▄▅▆▇█"
CHART_COLUMNS = 60
# Number of classes if the dataset is not on this machine: the identities of Market-1501.
DEFAULT_CLASSES = 751


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe file or the name of one")
    parser.add_argument("--against", metavar="OTHER", help="list the differences to this recipe")
    parser.add_argument("--out", metavar="FILE.html", help="write a page with the learning rate")
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    overrides = options.overrides
    cfg = load_config(options.recipe, overrides)
    if options.against is None:
        sections = explain(options.recipe, cfg)
        lines, recipes = to_lines(sections, cfg), {options.recipe: cfg}
        differences: list[Difference] = []
    else:
        other = load_config(options.against, overrides)
        names = (options.recipe, options.against)
        sections, recipes = [], dict(zip(names, (cfg, other), strict=True))
        differences = find_differences(cfg, other)
        lines = _compare(differences, names=names)
    for line in lines:
        echo(line)
    if options.out:
        path = Path(options.out)
        write_page(path, recipes, sections=sections, differences=differences)
        echo(f"written: {path}")


def explain(recipe: str, cfg: Config) -> list[Section]:
    """The sections of an explanation; `cfg` is the recipe with the overrides."""
    num_classes, iterations = _training_data(cfg)
    network = build_model(cfg, num_classes=num_classes, pretrained=False)
    size = tuple(cfg.INPUT.SIZE_TRAIN)
    cost = measure_cost(network, size)
    mean_flops = mean_training_flops(
        network, resized_sizes(size, cfg.INPUT.SCALES), cfg.INPUT.SCALE_STEPS
    )
    score = describe_score(header_chain(recipe))
    described = describe(cfg, cost=cost, mean_flops=mean_flops, iterations=iterations)
    return [*described, score]


def to_lines(sections: Sequence[Section], cfg: Config) -> Iterator[str]:
    """The sections as text, and the learning rate as a line of blocks."""
    for section in sections:
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
        loader = build_train_loader(overrides, data.records)
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


def _compare(differences: Sequence[Difference], *, names: tuple[str, str]) -> Iterator[str]:
    if not differences:
        yield f"{names[0]} and {names[1]} have the same training settings"
        return
    width = max(len(difference.key) for difference in differences)
    yield f"{'':{width}}  {names[0]}  ->  {names[1]}"
    for difference in differences:
        yield f"{difference.key:{width}}  {difference.first}  ->  {difference.second}"


main = Command("explain", __doc__ or "", add_options, run).main
