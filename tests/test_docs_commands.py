"""Every command in the README and in docs/ runs here, or the text next to it says what it needs.

A command is a line of an indented or unlabeled fenced block, or `inline code`, that begins with
ember-reid, python, make, torchrun or pip. A reader replaces words in capitals (RECIPE, FILE, ...).
A command that ends with a backslash continues on the next line. The marks are "needs a data set",
"needs a GPU", "needs a weight file", "server" and "minutes", in the comment after the command or in
the text after inline code; "the commands on this page need ..." marks a page. Marked commands are
only parsed. The others run in this process, on rendered people, with sizes reduced by the options
below.
"""

import csv
import re
import shutil
from pathlib import Path

import pytest
from ember_reid.config import load_config

from ember_reid import cli
from tests.helpers.documents import (
    DOCUMENTS,
    ROOT,
    check_make,
    check_pip,
    entry,
    fill_in,
    find_commands,
    parse,
    read,
    run,
    split,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkout with rendered people, trained runs, and a few images."""
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
    images = sorted((data / "market1501" / "query").glob("*.jpg"))
    for name, image in zip(("query.jpg", "a.jpg", "b.jpg", "c.jpg"), images, strict=False):
        shutil.copy(image, folder / name)
        shutil.copy(image, folder / "photos")
    for image in images:
        for name in (f"known/{image.name[:4]}/{image.name}", f"new/{image.name}"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, folder / name)
    for name, image in zip(("anna1.jpg", "anna2.jpg", "photo.jpg"), images, strict=False):
        shutil.copy(image, folder / name)
    for name in ("cows/list.csv", "list.csv"):
        write_list(folder / "data" / name, data / "market1501")
    return folder


def write_list(path: Path, market: Path) -> None:
    """Write a CSV list of the same people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    splits = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "pid", "camid", "split"])
        for name, split in splits.items():
            for image in sorted((market / name).glob("[0-9]*.jpg")):
                pid, camera = image.name.split("_")[:2]
                out.writerow([image, f"person {pid}", camera[:2], split])


@pytest.fixture(scope="module")
def marked_commands() -> set[tuple[str, ...]]:
    """Commands that are marked in any document; the mark need not be repeated elsewhere."""
    return {command.words for path in DOCUMENTS for command in read(path) if command.marked}


@pytest.fixture(scope="module")
def executed() -> set[tuple[str, ...]]:
    """Commands that have been run: a command that several documents contain runs once."""
    return set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_run_or_say_what_they_need(path, folder, marked_commands, executed, monkeypatch):
    monkeypatch.chdir(folder)
    for place, words, marked in read(path):
        typed = fill_in(words, folder)
        if words[0] == "make":
            check_make(words)
            assert words in marked_commands, f"{place}: say that {' '.join(words)} takes minutes"
        elif "pip" in words[:3]:
            check_pip(words)
        # Only the name of a command or tool.
        elif len(words) == 2 and words[0] == "ember-reid":
            assert typed[1] in cli.COMMANDS.commands, place
        elif len(words) == 3 and words[1] == "-m":
            entry(typed)
        elif words[0] == "torchrun" or marked or words in marked_commands:
            assert words in marked_commands, f"{place}: {' '.join(words)} is neither run nor marked"
            parse(typed, monkeypatch)
        elif tuple(typed) not in executed:
            run(typed)
            executed.add(tuple(typed))


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
        text = re.sub(r"\\\n#\s*", "", path.read_text(encoding="utf-8"))
        head = [line for line in text.splitlines() if line.startswith("#")]
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


# Tests of the functions above
PAGE = """
    python main.py -c RECIPE [KEY VALUE ...] SEED 2   # continue
    python -m tools.doctor \\
        DATASET                                       # needs a data set

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
    with pytest.raises(AssertionError, match="numpi is not a dependency"):
        check_pip(("pip", "install", "numpi"))
