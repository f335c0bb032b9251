"""The output folder of a run: what may be written, and the files around a training."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ember_reid.engine.checkpoint import LAST, PREVIOUS
from ember_reid.engine.cross_domain import (
    CROSS_DOMAIN_FILE,
    compare_domains,
    describe_transfer,
)
from ember_reid.engine.files import find_drafts, replace_text

import ember_reid

logger = logging.getLogger("ember.main")

ENVIRONMENT_FILE = "environment.json"
# Files that are not replaced unless the user says so.
RESULT_FILES = ("checkpoints", "results.json", "metrics.jsonl")
CHECKPOINT_FILES = (LAST, PREVIOUS, "best.pt")
# Files that only a training writes.
TRAINING_FILES = ("metrics.jsonl", ENVIRONMENT_FILE, "made_with.json")
# Files of a training, which a new run with OVERWRITE True deletes first.
RUN_FILES = (
    "log.txt",
    "metrics.jsonl",
    "results.csv",
    ENVIRONMENT_FILE,
    # The former name of environment.json.
    "made_with.json",
    "results.json",
    "distillation.json",
    CROSS_DOMAIN_FILE,
    "clusters.csv",
    "report.html",
    "visdom.jsonl",
)


def is_restarted(folder: Path, config: str) -> bool:
    """Whether torchrun (--max-restarts) restarts the run of this folder after a failure.

    Such a run resumes automatically. Another run must not take over the folder, so the
    configurations are compared.
    """
    recorded = folder / "config.yml"
    has_failed = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    return has_failed and recorded.is_file() and recorded.read_text(encoding="utf-8") == config


def check_output_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to overwrite an existing run, and to resume one that does not exist.

    Raises:
        ValueError: the folder contains a run, or is a file.
        FileNotFoundError: there is no checkpoint to resume from.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"OUTPUT_DIR {folder} is a file; name a folder")
    found = [name for name in RESULT_FILES if (folder / name).exists()]
    if found and not (resume or overwrite):
        raise ValueError(
            f"OUTPUT_DIR {folder} already contains a run ({', '.join(found)}): continue it with "
            "--resume, replace it with OVERWRITE True, or choose another OUTPUT_DIR"
        )
    for name in (*RUN_FILES, "config.yml"):
        if (folder / name).exists() and not (folder / name).is_file():
            raise ValueError(f"OUTPUT_DIR: {folder / name} is not a regular file; remove it")
    is_ours = any((folder / name).is_file() for name in (ENVIRONMENT_FILE, "made_with.json"))
    written = [
        name for name in (*RUN_FILES, "config.yml", "tensorboard") if (folder / name).exists()
    ]
    if written and not (is_ours or resume or overwrite):
        raise ValueError(
            f"OUTPUT_DIR {folder} contains {', '.join(written)}, which this run would replace: "
            "choose another OUTPUT_DIR, or replace them with OVERWRITE True"
        )
    if resume and not has_checkpoint(folder):
        raise FileNotFoundError(
            f"--resume: there is no {folder / 'checkpoints' / LAST}; start without --resume"
        )


def check_test_folder(folder: Path) -> None:
    """Refuse to write the results of a test into the folder of a training run.

    Raises:
        ValueError: the folder contains a training run, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"OUTPUT_DIR {folder} is a file; name a folder")
    names = (*TRAINING_FILES, *(f"checkpoints/{name}" for name in CHECKPOINT_FILES))
    found = [name for name in names if (folder / name).exists()]
    if found:
        raise ValueError(
            f"OUTPUT_DIR {folder} contains a training run ({found[0]}), whose results.json a test "
            "would replace: choose another OUTPUT_DIR, or leave it out"
        )


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return any((folder / "checkpoints" / name).is_file() for name in (LAST, PREVIOUS))


def prepare_output_folder(folder: Path, *, config: str, resume: bool) -> None:
    """Create the folder and `config.yml`. A new run deletes only the previous run's files."""
    # Drafts of a run that was killed while saving.
    old = [*(folder / "checkpoints").glob(".*.tmp")]
    if not resume:
        old += [folder / "checkpoints" / name for name in CHECKPOINT_FILES]
        old += [folder / name for name in RUN_FILES]
        old += (folder / "tensorboard").glob("events.out.tfevents*")
        old += (folder / "trackers").glob("*.id")
    for name in (*RUN_FILES, "config.yml"):
        old += find_drafts(folder / name)
    for path in old:
        path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "config.yml", config)


def write_results(
    folder: Path,
    results: Mapping[str, dict],
    *,
    trained_on: Sequence[str],
    same_domain: Sequence[str],
) -> None:
    """Write `results.json`, and log a table if there are several test sets.

    If there are test sets of other datasets than those of the training, `cross_domain.json` is
    written as well.
    """
    path = folder / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(results, indent=2) + "\n")
    comparison = compare_domains(results, trained_on=trained_on, same_domain=same_domain)
    if comparison:
        replace_text(folder / CROSS_DOMAIN_FILE, json.dumps(comparison, indent=2) + "\n")
    else:
        (folder / CROSS_DOMAIN_FILE).unlink(missing_ok=True)
    for line in describe_transfer(results, trained_on=trained_on, same_domain=same_domain):
        logger.info(line)
    logger.info("results: %s", path)


def write_report(folder: Path) -> None:
    """Write `report.html` with tools.report in a separate process, which cannot fail the run."""
    packages = str(Path(ember_reid.__file__).resolve().parents[1])
    # Not `-m`: that would search the current directory, which may contain a package of that name.
    program = (
        "import sys; sys.path[0] = sys.argv.pop(1); "
        "from ember_reid.tools.report import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, packages, str(folder)]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        logger.warning("the report was not written; try: python -m tools.report %s", folder)
    else:
        logger.info("report: %s", folder / "report.html")
