"""The explanation of a recipe, or of the differences between two, as an HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ember_reid.config import Config
from ember_reid.solver import build_schedule
from ember_reid.tools.common.charts import Line, line_chart
from ember_reid.tools.common.html import Table, write_html
from ember_reid.tools.explain.description import Section
from ember_reid.tools.explain.differences import Difference

MAX_POINTS = 400
PER_EPOCH = 100


def write_page(
    path: Path,
    recipes: Mapping[str, Config],
    *,
    sections: Sequence[Section] = (),
    differences: Sequence[Difference] = (),
) -> None:
    """Write one file without scripts: the learning rates of the recipes, words, differences.

    Args:
        path: the file.
        recipes: name -> configuration, one or two.
        sections: of a single recipe.
        differences: of two recipes.
    """
    lines = [Line(name, learning_rates(cfg)) for name, cfg in recipes.items()]
    rows = tuple((one.key, str(one.first), str(one.second)) for one in differences)
    content = {
        "title": " and ".join(recipes),
        "charts": [line_chart("learning rate", lines, x="epoch")],
        "sections": sections,
        "differences": Table(("key", *recipes), rows) if len(recipes) > 1 else None,
    }
    write_html(path, "explain.html", content)


def learning_rates(cfg: Config) -> tuple[tuple[float, float], ...]:
    """(epoch, learning rate) over the training, at most `MAX_POINTS` + 1 points."""
    s = cfg.SOLVER
    highest = s.BASE_LR * (s.IMS_PER_BATCH / s.BASE_BATCH if s.BASE_BATCH else 1)
    factor = build_schedule(cfg, PER_EPOCH)
    total = s.MAX_EPOCHS * PER_EPOCH
    num = min(total, MAX_POINTS)
    iterations = sorted({max(1, round(i * total / num)) for i in range(num + 1)})
    return tuple((i / PER_EPOCH, highest * factor(i)) for i in iterations)
