"""Train a series of students, each of which teaches the next.

    python -m tools.born_again -c distill/vkd/mars/self_resnet50 --count 2 DATASETS.ROOT /data

Born-again networks (Furlanello et al. 2018); VKD calls them generations. Generation g is an
ordinary run in OUTPUT_DIR/generation<g>. Its teacher is the best checkpoint of generation g - 1;
the first one uses the teacher of the recipe. Its learning rate is BASE_LR * factor^(g - 1), but at
least --lowest. Complete generations (results.json exists) are skipped; others are resumed.
"""

import argparse
from pathlib import Path

from ember_reid.config import Config, load_config
from ember_reid.tools.common.cli import Command, add_overrides, add_recipe
from ember_reid.tools.common.runs import PlannedRun, complete_run


def plan(cfg: Config, *, count: int, factor: float, lowest: float) -> list[PlannedRun]:
    """Return the runs of all generations.

    Raises:
        ValueError: fewer than one generation, or a recipe without exactly one teacher.
    """
    if count < 1:
        raise ValueError(f"--count is {count}, it must be at least 1")
    if len(cfg.KD.TEACHERS) != 1:
        raise ValueError(
            f"generations have one teacher each, KD.TEACHERS names {len(cfg.KD.TEACHERS)}"
        )
    teacher = cfg.KD.TEACHERS[0]
    generations = []
    for number in range(1, count + 1):
        folder = Path(cfg.OUTPUT_DIR) / f"generation{number}"
        rate = max(cfg.SOLVER.BASE_LR * factor ** (number - 1), min(lowest, cfg.SOLVER.BASE_LR))
        words = ("KD.TEACHERS", f"('{teacher}',)", "SOLVER.BASE_LR", f"{rate:g}")
        generations.append(PlannedRun(folder, words))
        teacher = str(folder / "checkpoints" / "best.pt")
    return generations


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe(parser, required=True, text="a recipe with one teacher")
    parser.add_argument("--count", type=int, default=2, help="generations (default %(default)s)")
    parser.add_argument(
        "--factor",
        type=float,
        default=0.1,
        help="learning rate factor per generation (default %(default)s, as in VKD)",
    )
    parser.add_argument(
        "--lowest",
        type=float,
        default=1e-5,
        help="lowest learning rate (default %(default)s, as in VKD)",
    )
    add_overrides(parser)


def run(options: argparse.Namespace) -> int:
    """Train the generations; return the exit code of the last one that ran."""
    cfg = load_config(options.config, options.overrides)
    for planned in plan(cfg, count=options.count, factor=options.factor, lowest=options.lowest):
        code = complete_run(options.config, options.overrides, planned)
        if code:
            return code
    return 0


main = Command("born_again", __doc__ or "", add_options, run).main
