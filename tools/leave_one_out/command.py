r"""Train once for each dataset that is left out, and test on that dataset.

    python -m tools.leave_one_out -c quickstart/people \
        DATASETS.NAMES "['quickstart', 'csv:cows.csv']" OUTPUT_DIR runs/leave_one_out
    python -m tools.leave_one_out -c generalize/market1501/r50_mixstyle DATASETS.ROOT /data \
        DATASETS.NAMES "['market1501', 'dukemtmc', 'msmt17']" OUTPUT_DIR runs/leave_one_out

The scores estimate how well a training on all datasets works in a place that it has not seen.
Each run is an ordinary one in OUTPUT_DIR/without-NAME. Complete runs (results.json exists) are not
repeated; others are resumed. The table is in OUTPUT_DIR/leave_one_out.json and leave_one_out.txt.
DATASETS.TESTS is replaced by the dataset that is left out.
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ember_reid.config import Config, load_config
from ember_reid.data.datasets import resolve
from ember_reid.engine.cross_domain import METRICS, format_scores, mean_scores
from ember_reid.engine.files import replace_text
from ember_reid.tools.common.cli import Command, add_overrides, add_recipe, echo
from ember_reid.tools.common.runs import PlannedRun, complete_run, read_results

TABLE, TEXT = "leave_one_out.json", "leave_one_out.txt"


def plan(cfg: Config) -> dict[str, PlannedRun]:
    """The run without each dataset, by the name of the dataset.

    Raises:
        ValueError, FileNotFoundError: fewer than two datasets, one that is named twice, or one that
            does not exist.
    """
    specs = list(cfg.DATASETS.NAMES)
    if len(specs) < 2:
        raise ValueError(
            f"leaving one dataset out needs at least two in DATASETS.NAMES, found {len(specs)}: "
            f"{', '.join(specs)[:200]}"
        )
    folders = [resolve(spec, Path(cfg.DATASETS.ROOT)).path.resolve() for spec in specs]
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise ValueError(f"DATASETS.NAMES names {folder} twice")
    runs: dict[str, PlannedRun] = {}
    for left_out in specs:
        others = [spec for spec in specs if spec != left_out]
        words = ("DATASETS.NAMES", str(others), "DATASETS.TESTS", str([left_out]))
        name = base = _name_of(left_out)
        number = 1
        while name in runs:
            number += 1
            name = f"{base}-{number}"
        runs[name] = PlannedRun(Path(cfg.OUTPUT_DIR) / f"without-{name}", words)
    return runs


def _name_of(spec: str) -> str:
    """The name of a dataset, for a folder: that of its file or folder if it has no other name."""
    head, _, place = spec.partition(":")
    name = Path(place).stem if head in ("csv", "folder") else head
    return re.sub(r"[^\w@.+-]", "_", name)[:100].strip(".") or "data"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe(parser, required=True)
    add_overrides(parser)


def run(options: argparse.Namespace) -> int:
    """Run the series; return the exit code of the first run that failed."""
    cfg = load_config(options.config, options.overrides)
    runs = plan(cfg)
    for name, planned in runs.items():
        echo(f"--- without {name}: {planned.folder}")
        code = complete_run(options.config, options.overrides, planned)
        if code:
            return code
    # Held-out identities of the training come first.
    scores = {
        name: list(read_results(planned.folder).values())[-1] for name, planned in runs.items()
    }
    for line in write_table(Path(cfg.OUTPUT_DIR), list(cfg.DATASETS.NAMES), scores):
        echo(line)
    return 0


def write_table(
    folder: Path, specs: list[str], scores: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Write the table; returns its lines.

    Args:
        specs: the datasets, in the order of `scores`.
        scores: the scores on each dataset that was left out, by its name.
    """
    rows = [
        {"left_out": spec, "name": name, **{metric: row[metric] for metric in METRICS}}
        for spec, (name, row) in zip(specs, scores.items(), strict=True)
    ]
    mean = mean_scores(scores.values())
    content = {"rows": rows, "mean": mean}
    lines = format_scores(
        [*((name, "", row) for name, row in scores.items()), ("mean", "", mean)], title="left out"
    )
    replace_text(folder / TABLE, json.dumps(content, indent=2) + "\n")
    replace_text(folder / TEXT, "\n".join(lines) + "\n")
    return lines


main = Command(
    "leave_one_out", __doc__ or "", add_options, run, interrupted="interrupted; run it again"
).main
