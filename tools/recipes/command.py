"""List the shipped recipes with their dataset, network and score.

    python -m tools.recipes market1501 ibn
    python -m tools.recipes --min-map 85

A recipe is listed if its name, dataset and network together contain every word. Scores come from
the headers of the recipes. "published" scores are those of the authors of the method; "measured"
scores were reached by this program. See the headers and docs/benchmarks/results.md.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from ember_reid.config import RecipeHeader, load_config, read_header, recipe_names
from ember_reid.config.entry_points import installed_plugins
from ember_reid.tools.common.cli import Command, echo


@dataclass(frozen=True)
class Recipe:
    """A shipped recipe.

    Attributes:
        name: the name for -c and `ember-reid train`.
        datasets: training sets.
        network: backbone and head.
        source: published | measured | "".
        mAP, rank1: percent, or None if the header states no score.
    """

    name: str
    datasets: str
    network: str
    source: str
    mAP: float | None
    rank1: float | None


def read_recipe(name: str) -> Recipe:
    """Read one recipe and the score in its header."""
    cfg = load_config(name)
    network = cfg.MODEL.BACKBONE.NAME
    if cfg.MODEL.HEAD.NAME != "global":
        network += f" + {cfg.MODEL.HEAD.NAME}"
    source, mAP, rank1 = read_score(read_header(name))
    datasets = ", ".join(source.partition(":")[0] for source in cfg.DATASETS.NAMES)
    return Recipe(name, datasets, network, source, mAP, rank1)


def read_score(header: RecipeHeader) -> tuple[str, float | None, float | None]:
    """("published" | "measured" | "", mAP, Rank-1) from the header of a recipe."""
    if header.scores:
        values = dict(header.scores[0].values)
        return "published", values.get("mAP"), values.get("Rank-1")
    mAP, rank1 = (_find_percent(header.measured, key) for key in ("mAP", "Rank-1"))
    return "measured" if header.measured else "", mAP, rank1


def _find_percent(text: str, key: str) -> float | None:
    found = re.search(rf"{key} (\d+(?:\.\d+)?)", text)
    return float(found[1]) if found else None


def find_recipes(words: Sequence[str] = (), *, min_map: float | None = None) -> Iterator[Recipe]:
    """Find shipped recipes that contain every word and reach `min_map` percent, sorted by name."""
    for name in recipe_names():
        recipe = read_recipe(name)
        text = f"{name} {recipe.datasets} {recipe.network}".lower()
        reached = min_map is None or (recipe.mAP is not None and recipe.mAP >= min_map)
        if reached and all(word.lower() in text for word in words):
            yield recipe


def format_table(recipes: Sequence[Recipe]) -> list[str]:
    """A header line, and one line per recipe."""
    rows = [("recipe", "dataset", "network", "mAP", "Rank-1", "score")]
    rows += [
        (one.name, one.datasets, one.network, _percent(one.mAP), _percent(one.rank1), one.source)
        for one in recipes
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def describe_plugins(imported: Sequence[str]) -> list[str]:
    """Describe the installed plug-ins, and what the imported ones register."""
    installed = installed_plugins()
    names = ", ".join(sorted(installed))
    lines = [f"installed plug-ins, for IMPORTS: {names}"] if installed else []
    if imported:
        # This import loads torch.
        from ember_reid.engine.plugins import load_plugins, registered_names

        load_plugins(imported)
        lines += [f"{kind}: {', '.join(names)}" for kind, names in registered_names().items()]
    return lines


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("words", nargs="*", metavar="WORD", help="part of a name (default: all)")
    parser.add_argument("--min-map", type=float, metavar="PERCENT", help="lowest mAP to list")
    parser.add_argument(
        "--imports",
        action="append",
        default=[],
        metavar="PLUGIN",
        help="import this plug-in and list what it adds; can be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Print the recipes that match."""
    recipes = list(find_recipes(options.words, min_map=options.min_map))
    if options.json:
        echo(json.dumps([asdict(one) for one in recipes], indent=2))
        return
    if not recipes:
        raise ValueError(f"no recipe matches {' '.join(options.words)!r}")
    for line in [*format_table(recipes), *describe_plugins(options.imports)]:
        echo(line)


main = Command("recipes", __doc__ or "", add_options, run).main
