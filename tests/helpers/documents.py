"""Finds, parses and runs the commands in the documents: see tests/test_docs_commands.py."""

import argparse
import importlib
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
from ember_reid.config import load_config

from ember_reid import cli
from ember_reid import main as program

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FIRST_WORD = r"(?:ember-reid|python|make|torchrun|pip) "
MARK = re.compile(
    r"\bneeds? (?:a |an |the )?(?:data sets?|GPUs?|weight files?)\b|\bminutes\b|\bserver\b"
)
PAGE_MARK = re.compile(r"commands\s+on\s+this\s+page\s+need\s+a\s+(?:data\s+set|GPU|weight\s+file)")

# Placeholders that a reader replaces.
PLACEHOLDERS = {
    "RECIPE": "configs/quickstart/logits.yml",
    "RUN": "runs/quickstart",
    "RUN1": "runs/quickstart",
    "RUN2": "runs/other",
    "RUN_DIR": "runs/quickstart",
    "RUN_DIR2": "runs/other",
    "FILE": "runs/quickstart/checkpoints/best.pt",
    "CHECKPOINT": "runs/quickstart/checkpoints/best.pt",
    "DATASET": "quickstart:datasets/quickstart/market1501",
    "IMAGES": "photos",
    "QUERY_IMAGE": "query.jpg",
    "OUT": "out",
    "NAME": "recipes",
    "tools.NAME": "tools.doctor",
}
PEOPLE = (
    "--train-ids 4 --test-ids 3 --distractors 2 --junk 1 --frames 2 --workers 1 --overwrite".split()
)
SMALL = (
    "INPUT.SIZE_TRAIN (32,16) INPUT.SIZE_TEST (32,16) MODEL.BACKBONE.NAME tiny "
    "SOLVER.MAX_EPOCHS 1 SOLVER.WARMUP_EPOCHS 0 SOLVER.IMS_PER_BATCH 8 "
    "DATALOADER.NUM_INSTANCES 2 DATALOADER.NUM_WORKERS 0 TEST.RE_RANK.K1 4 TEST.RE_RANK.K2 2 "
    "LOG.TO () LOG.PROGRESS False DEVICE cpu NUM_THREADS 1"
).split()
# tests/engine/test_processes.py runs two processes.
TRAINED = [*SMALL, "OVERWRITE", "True", "NUM_PROCESSES", "1"]
REDUCED_SIZES = {
    "main.py -c": TRAINED,
    "main.py -t": ["DEVICE", "cpu", "OUTPUT_DIR", "runs/tested"],
    "train": TRAINED,
    # More epochs would replace weights that another page has calibrated.
    "resume": ["SOLVER.MAX_EPOCHS", "1"],
    "test": ["DEVICE", "cpu"],
    "tools.quickstart_data": PEOPLE,
    "tools.baselines": SMALL,
    "tools.born_again": SMALL,
    "tools.leave_one_out": SMALL,
    "tools.visualize": ["--count", "1"],
    "tools.report": ["--count", "1"],
    "tools.heatmaps": ["--count", "1", "--out", "heatmaps"],
    "tools.calibrate": ["--resamples", "20"],
    "tools.benchmark evaluate": ["--shape", "tiny", "--repeats", "1"],
    "tools.benchmark train": ["--iterations", "2", "--warmup", "1", *SMALL],
    "tools.benchmark distill": ["--rounds", "2", *SMALL],
    "tools.benchmark latency": "--batch 2 --repeats 2 --device cpu --precision float32".split(),
}
# Subcommands of ember-reid whose package in tools/ has another name.
PACKAGES = {"embed": "extract", "leave-one-out": "leave_one_out"}


class Command(NamedTuple):
    """The words of a command in a document, and whether the document states what it needs."""

    place: str
    words: tuple[str, ...]
    marked: bool


def find_commands(name: str, text: str) -> list[Command]:
    """All commands of a document, in order of appearance."""
    whole_page = bool(PAGE_MARK.search(text.split("\n## ")[0]))
    found, fence = [], None
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("```"):
            fence = None if fence is not None else line.strip().removeprefix("```")
        elif fence == "" or (fence is None and line.startswith("    ")):
            if re.match(FIRST_WORD, line.strip()):
                code, _, comment = join_continued(lines[number - 1 :]).partition(" #")
                found.append((number, code, comment))
        elif fence is None:
            # In tables that compare another program with ours, the last column is ours.
            ours = line.rstrip().rstrip("|").split("|")[-1] if name == "migrate.md" else line
            for inline in re.finditer(rf"`({FIRST_WORD}[^`]+)`", ours):
                found.append((number, inline[1], ours[inline.end() : inline.end() + 100]))
    return [
        Command(f"{name}:{number}", split(code), whole_page or bool(MARK.search(comment)))
        for number, code, comment in found
    ]


def join_continued(lines: list[str]) -> str:
    """The first line, joined with the following lines while a line ends with a backslash."""
    command = ""
    for line in lines:
        command += line.strip()
        if not command.endswith("\\"):
            break
        command = command.removesuffix("\\")
    return command


def split(code: str) -> tuple[str, ...]:
    """The words of a command, without optional parts in brackets and dots."""
    words = shlex.split(re.sub(r"\[[^\]]*\]", "", code))
    return tuple(word for word in words if word != "...")


def fill_in(words: tuple[str, ...], folder: Path) -> list[str]:
    """The words that a reader would type."""
    return [PLACEHOLDERS.get(word, word.replace("/data/", f"{folder}/data/")) for word in words]


def kind_of(words: list[str]) -> str:
    """The key of REDUCED_SIZES that belongs to a command."""
    if words[0] == "ember-reid":
        if words[1] in REDUCED_SIZES:
            return words[1]
        words = ["python", "-m", f"tools.{PACKAGES.get(words[1], words[1])}", *words[2:]]
    if words[1] == "main.py":
        return "main.py -t" if "-t" in words else "main.py -c"
    return f"{words[2]} {words[3]}" if words[2] == "tools.benchmark" else words[2]


def entry(words: list[str]):
    """The function behind a command, and its arguments."""
    if words[0] == "ember-reid":
        return cli.main, words[1:]
    if words[1] == "main.py":
        return program.main, words[2:]
    assert words[1] == "-m" and words[2].startswith("tools."), f"unknown program: {' '.join(words)}"
    return importlib.import_module(words[2]).main, words[3:]


class Parsed(Exception):
    """The parser of a command accepted its words."""


def parse(words: list[str], monkeypatch) -> None:
    """Only parse the arguments, and load the recipe with the given keys."""
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        launched = get_args_parser().parse_args(words[1:])
        words = ["python", launched.training_script, *launched.training_script_args]
    function, arguments = entry(words)
    with monkeypatch.context() as patch, pytest.raises(Parsed):
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(
                argparse.ArgumentParser, name, stop_after(getattr(argparse.ArgumentParser, name))
            )
        function(arguments)
    recipe, overrides = settings_of(words)
    load_config(recipe, overrides)


def settings_of(words: list[str]) -> tuple[str | None, list[str]]:
    """The recipe of a command, and its KEY VALUE pairs and KEY=VALUE words."""
    named = "-c" if "-c" in words else "train" if words[1] == "train" else None
    recipe = words[words.index(named) + 1] if named else None
    overrides = []
    for k, word in enumerate(words):
        if re.fullmatch(r"[A-Z_]+(\.[A-Z0-9_]+)+", word):
            overrides += words[k : k + 2]
        elif re.match(r"[A-Za-z_.]+=", word):
            overrides.append(word)
    return recipe, overrides


def stop_after(method):
    def parse_and_stop(*arguments, **options):
        method(*arguments, **options)
        raise Parsed

    return parse_and_stop


def run(words: list[str]) -> None:
    """Run a command with reduced sizes; it must exit with 0."""
    function, arguments = entry(words)
    assert function([*arguments, *REDUCED_SIZES.get(kind_of(words), ())]) == 0, " ".join(words)


def check_make(words: tuple[str, ...]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(words[1])}:", makefile, re.MULTILINE), (
        f"the Makefile has no {words[1]}"
    )


def check_pip(words: tuple[str, ...]) -> None:
    known = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in words[words.index("install") + 1 :]:
        assert name in ("-e", ".", "ember-reid") or f'"{name}>' in known, (
            f"{name} is not a dependency"
        )


def read(path: Path) -> list[Command]:
    return find_commands(path.name, path.read_text(encoding="utf-8"))
