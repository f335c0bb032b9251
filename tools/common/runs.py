"""Runs of a series: each one is trained once, and an interrupted series continues."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ember_reid.config import Config, flatten_config, load_config, parse_config
from ember_reid.engine.build import MACHINE_KEYS
from ember_reid.engine.run.output_folder import has_checkpoint
from ember_reid.engine.run.resume import compare_configs

from ember_reid import main as program

RESULTS = "results.json"


@dataclass(frozen=True)
class PlannedRun:
    """A run of a series.

    Attributes:
        folder: its OUTPUT_DIR.
        words: KEY VALUE words that follow those of the user, without OUTPUT_DIR.
    """

    folder: Path
    words: tuple[str, ...]


def complete_run(recipe: str, overrides: Sequence[str], run: PlannedRun) -> int:
    """Train a run, continue it if it was interrupted, or do nothing if it is complete.

    Returns:
        The exit code.

    Raises:
        ValueError: the folder contains a complete run of another configuration.
    """
    words = [*overrides, "OUTPUT_DIR", str(run.folder), *run.words]
    if (run.folder / RESULTS).is_file():
        _check_complete_run(run.folder, load_config(recipe, words))
        return 0
    resume = ["--resume"] if has_checkpoint(run.folder) else []
    return program.main(["-c", recipe, *resume, *words])


def _check_complete_run(folder: Path, cfg: Config) -> None:
    saved = parse_config((folder / "config.yml").read_text(encoding="utf-8"))
    changes = compare_configs(flatten_config(saved), flatten_config(cfg))
    differing = [
        change for part in changes for change in part if not change.startswith(MACHINE_KEYS)
    ]
    if differing:
        raise ValueError(
            f"{folder} contains a complete run with another configuration "
            f"({'; '.join(differing)[:400]}): choose another OUTPUT_DIR"
        )


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of a complete run.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / RESULTS
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(results, dict) or not results:
        raise ValueError(f"{path} is damaged: it has no scores")
    return results
