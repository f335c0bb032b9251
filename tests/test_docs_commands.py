"""Every command in the README and in docs/ runs here, or the text next to it says what it needs.

A command is a line of an indented or unlabeled fenced block, or `inline code`, that begins with
ember-reid, python, make, torchrun or pip. A reader replaces words in capitals (RECIPE, FILE, ...).
The marks are "needs a data set", "needs a GPU", "needs a weight file" and "minutes", in the comment
after the command or in the words that follow inline code; "the commands on this page need ..." marks
a page. Marked commands are only parsed. The others run in this process, on rendered people, with
sizes reduced by the options below.
"""

import argparse
import csv
import importlib
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from ember_reid.config import load_config

from ember_reid import cli
from ember_reid import main as program

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FIRST_WORD = r"(?:ember-reid|python|make|torchrun|pip) "
MARK = re.compile(r"\bneeds? (?:a |an |the )?(?:data sets?|GPUs?|weight files?)\b|\bminutes\b")
PAGE_MARK = re.compile(r"commands\s+on\s+this\s+page\s+need\s+a\s+(?:data\s+set|GPU|weight\s+file)")

# Words that a reader replaces.
STANDS_FOR = {
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
TURNED_DOWN = {
    "main.py -c": TRAINED,
    "main.py -t": ["DEVICE", "cpu", "OUTPUT_DIR", "runs/tested"],
    "train": TRAINED,
    # More epochs would replace weights that another page has calibrated.
    "resume": ["SOLVER.MAX_EPOCHS", "1"],
    "test": ["DEVICE", "cpu"],
    "tools.quickstart_data": PEOPLE,
    "tools.baselines": SMALL,
    "tools.born_again": SMALL,
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
PACKAGES = {"embed": "extract"}


class Command(NamedTuple):
    """The words of a command as they are in the document, and whether the document says what it needs."""

    place: str
    words: tuple[str, ...]
    marked: bool


def find_commands(name: str, text: str) -> list[Command]:
    """All commands of a document, in its order."""
    whole_page = bool(PAGE_MARK.search(text.split("\n## ")[0]))
    found, fence = [], None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fence = None if fence is not None else line.strip().removeprefix("```")
        elif fence == "" or (fence is None and line.startswith("    ")):
            if re.match(FIRST_WORD, line.strip()):
                code, _, comment = line.strip().partition(" #")
                found.append((number, code, comment))
        elif fence is None:
            # Of tables that put another program beside ours, the last column is ours.
            ours = line.rstrip().rstrip("|").split("|")[-1] if name == "migrate.md" else line
            for inline in re.finditer(rf"`({FIRST_WORD}[^`]+)`", ours):
                found.append((number, inline[1], ours[inline.end() : inline.end() + 100]))
    return [
        Command(f"{name}:{number}", split(code), whole_page or bool(MARK.search(comment)))
        for number, code, comment in found
    ]


def split(code: str) -> tuple[str, ...]:
    """The words of a command, without what is optional: brackets and dots."""
    words = shlex.split(re.sub(r"\[[^\]]*\]", "", code))
    return tuple(word for word in words if word != "...")


def fill_in(words: tuple[str, ...], folder: Path) -> list[str]:
    """The words that a reader would type."""
    return [STANDS_FOR.get(word, word.replace("/data/", f"{folder}/data/")) for word in words]


def kind_of(words: list[str]) -> str:
    """The key of TURNED_DOWN."""
    if words[0] == "ember-reid":
        if words[1] in TURNED_DOWN:
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
    """Let the program parse its words, and no more; load the recipe with the keys that they name."""
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        launched = get_args_parser().parse_args(words[1:])
        words = ["python", launched.training_script, *launched.training_script_args]
    function, arguments = entry(words)
    with monkeypatch.context() as patch, pytest.raises(Parsed):
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(
                argparse.ArgumentParser, name, then_stop(getattr(argparse.ArgumentParser, name))
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


def then_stop(method):
    def parse_and_stop(*arguments, **options):
        method(*arguments, **options)
        raise Parsed

    return parse_and_stop


def run(words: list[str]) -> None:
    """Run a command with its size turned down; fails unless it exits with 0."""
    function, arguments = entry(words)
    assert function([*arguments, *TURNED_DOWN.get(kind_of(words), ())]) == 0, " ".join(words)


def check_make(words: tuple[str, ...]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(words[1])}:", makefile, re.MULTILINE), (
        f"the Makefile has no {words[1]}"
    )


def check_pip(words: tuple[str, ...]) -> None:
    known = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in words[words.index("install") + 1 :]:
        assert name in ("-e", ".", "ember-reid") or f'"{name}>' in known, (
            f"{name} is none of our dependencies"
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkout with rendered people, trained runs, and pictures of one's own."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "configs").symlink_to(ROOT / "configs")
    data = folder / "datasets" / "quickstart"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(["python", "-m", "tools.quickstart_data", str(data), "--images"])
        run(["python", "main.py", "-c", "configs/quickstart/teacher.yml"])
    for name in ("quickstart", "other", "teacher", "student"):
        shutil.copytree(folder / "runs" / "quickstart_teacher", folder / "runs" / name)
    (folder / "photos").mkdir()
    pictures = sorted((data / "market1501" / "query").glob("*.jpg"))
    for name, picture in zip(("query.jpg", "a.jpg", "b.jpg", "c.jpg"), pictures, strict=False):
        shutil.copy(picture, folder / name)
        shutil.copy(picture, folder / "photos")
    for name in ("cows/list.csv", "list.csv"):
        write_list(folder / "data" / name, data / "market1501")
    return folder


def write_list(path: Path, market: Path) -> None:
    """The same people as a list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    splits = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "pid", "camid", "split"])
        for name, split in splits.items():
            for picture in sorted((market / name).glob("[0-9]*.jpg")):
                pid, camera = picture.name.split("_")[:2]
                out.writerow([picture, f"person {pid}", camera[:2], split])


@pytest.fixture(scope="module")
def said() -> set[tuple[str, ...]]:
    """Commands that are marked somewhere; elsewhere the mark need not be repeated."""
    return {command.words for path in DOCUMENTS for command in read(path) if command.marked}


def read(path: Path) -> list[Command]:
    return find_commands(path.name, path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def done() -> set[tuple[str, ...]]:
    """What was typed already: a command that several documents give runs once."""
    return set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_run_or_say_what_they_need(path, folder, said, done, monkeypatch):
    monkeypatch.chdir(folder)
    for place, words, marked in read(path):
        typed = fill_in(words, folder)
        if words[0] == "make":
            check_make(words)
            assert words in said, f"{place}: say that {' '.join(words)} takes minutes"
        elif "pip" in words[:3]:
            check_pip(words)
        # Only the name of a command or tool.
        elif len(words) == 2 and words[0] == "ember-reid":
            assert typed[1] in cli.COMMANDS.commands, place
        elif len(words) == 3 and words[1] == "-m":
            entry(typed)
        elif words[0] == "torchrun" or marked or words in said:
            assert words in said, f"{place}: {' '.join(words)} is neither run nor marked"
            parse(typed, monkeypatch)
        elif tuple(typed) not in done:
            run(typed)
            done.add(tuple(typed))


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/how-to/evaluate.md",
        "docs/how-to/search.md",
        "docs/reference/api.md",
        "docs/tutorials/quickstart.md",
    ],
)
def test_python_examples_run(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    blocks = re.findall(
        r"^```python\n(.*?)^```",
        (ROOT / name).read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), {})


def test_recipes_name_their_own_command():
    defaults = load_config(None)
    for path in sorted((ROOT / "configs").rglob("*.yml")):
        head = [
            line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")
        ]
        name = path.relative_to(ROOT).as_posix()
        commands = [m[1] for line in head if (m := re.search(r"(python main\.py -c .*)", line))]
        for words in (re.split(r"\s{2,}", command)[0].split() for command in commands):
            assert words[3] == name, f"{name} gives the command of {words[3]}"
            for key in words[4::2]:
                node = defaults
                for part in key.split("."):
                    assert part in node, f"{name}: {key} is no key"
                    node = node[part]
        for other in re.findall(r"configs/[\w/.-]+?\.yml", " ".join(head)):
            assert (ROOT / other).is_file(), f"{name} names {other}, which is no recipe"


# ---------------------------------------------------------------------------------------------- the test's own parts
PAGE = """
    python main.py -c RECIPE [KEY VALUE ...] SEED 2   # go on
    python -m tools.doctor DATASET                    # needs a data set

```
make demo    # minutes
```

```python
python = 1
```

Say `python -m tools.search F "a b"` or `make test` (minutes), never `ls`.
"""


def test_commands_are_found():
    assert [(command.words, command.marked) for command in find_commands("x.md", PAGE)] == [
        (("python", "main.py", "-c", "RECIPE", "SEED", "2"), False),
        (("python", "-m", "tools.doctor", "DATASET"), True),
        (("make", "demo"), True),
        (("python", "-m", "tools.search", "F", "a b"), True),
        (("make", "test"), True),
    ]
    assert all(
        c.marked
        for c in find_commands("x.md", "The commands on this page need a data set.\n" + PAGE)
    )
    assert (
        find_commands("migrate.md", "| `python theirs.py x` | `python main.py -c A` |")[0].words[1]
        == "main.py"
    )


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("python -m tools.report RUN --no-such-option", SystemExit),
        ("python -m tools.no_such_tool RUN", ModuleNotFoundError),
        ("python other.py RUN", AssertionError),
        ("python main.py -c configs/quickstart/people.yml SOLVER.BASE_LT 1", ValueError),
        ("python main.py -c configs/no_such.yml", FileNotFoundError),
        ("torchrun --no-such-option main.py -c RECIPE", SystemExit),
    ],
)
def test_a_typo_in_a_marked_command_is_found(command, error, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with pytest.raises(error):
        parse(fill_in(split(command), folder), monkeypatch)


def test_unknown_targets_and_packages_are_found():
    check_make(("make", "demo"))
    check_pip(("python", "-m", "pip", "install", "faiss-cpu", "onnx"))
    with pytest.raises(AssertionError, match="the Makefile has no dmeo"):
        check_make(("make", "dmeo"))
    with pytest.raises(AssertionError, match="numpi is none of our dependencies"):
        check_pip(("pip", "install", "numpi"))
