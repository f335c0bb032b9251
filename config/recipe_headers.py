"""The comment at the top of a recipe: commands, published scores and their source.

    # BoT R50 on Market-1501.
    #   python main.py -c configs/market1501/bot_R50.yml DATASETS.ROOT /data
    # score: Rank-1 94.4, mAP 86.1, mINP 59.4
    # source: FastReID, MODEL_ZOO.md, 2020-05-04, commit 35076d5
    # program: FastReID of May 2020 (35076d5)
    # differs: ...

A source ends with `commit HASH`, or `arXiv NUMBERvN` for a paper. `score (re-ranked): ...` gives
the condition of a score. A tag continues on lines that start with three spaces. `program` and
`differs` may be in the `_BASE_` files. Scores are in percent.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ember_reid.config.load import read_recipe_files
from ember_reid.config.recipes import RECIPE_FOLDER, find_recipe

TAGS = ("after", "differs", "measured", "program", "score", "source")
_TAG = re.compile(rf"# ({'|'.join(TAGS)})(?: \(([^()]*)\))?: (.+)")
_VALUE = re.compile(r"(Rank-\d+|mAP|mINP) (\d+(?:\.\d+)?)")
_SOURCE = re.compile(r".+, (\d{4}-\d{2}-\d{2}), (commit [0-9a-f]{7,40}|arXiv \d{4}\.\d{5}v\d+)")


@dataclass(frozen=True)
class Score:
    """A published score.

    Attributes:
        condition: "re-ranked", "image to video", ...; empty for the usual one.
        values: (metric, percent) pairs, e.g. ("Rank-1", 94.4).
        text: the values as they are written in the recipe.
    """

    condition: str
    values: tuple[tuple[str, float], ...]
    text: str


@dataclass(frozen=True)
class RecipeHeader:
    """The structured comment of one recipe file.

    Attributes:
        name: `market1501/bot_R50`, or the path of a file outside `configs/`.
        title: the description.
        commands: the commands that run the recipe.
        scores: published scores; empty if there is none, and then `no_score` says so.
        no_score: "none published" or a reason.
        source: page, date and commit of the scores.
        program: whose settings the recipe has.
        differs: known remaining differences from that program.
        measured: our own result.
        after: the recipes that have to be run before.
    """

    name: str
    title: str
    commands: tuple[str, ...]
    scores: tuple[Score, ...] = ()
    no_score: str = ""
    source: str = ""
    program: str = ""
    differs: str = ""
    measured: str = ""
    after: str = ""


def read_header(name: str | Path) -> RecipeHeader:
    """Read the header of a recipe.

    Raises:
        ValueError: a score that cannot be read, a score without a source, or a tag that appears
            twice; one line.
        FileNotFoundError: there is no such recipe.
    """
    path = find_recipe(name)
    return _parse_header(path)


def header_chain(name: str | Path) -> list[RecipeHeader]:
    """Return the headers of a recipe's `_BASE_` files in the order of merging, then its own."""
    return [_parse_header(path) for path in read_recipe_files(find_recipe(name))]


def _parse_header(path: Path) -> RecipeHeader:
    display = recipe_name(path)
    title: list[str] = []
    commands: list[str] = []
    tags: dict[str, str] = {}
    scores: list[Score] = []
    for tag, condition, text in _entries(path):
        if tag == "":
            title.append(text)
        elif tag == "command":
            commands.append(text)
        elif tag == "score" and _VALUE.search(text):
            scores.append(_parse_score(display, condition, text))
        elif tag in tags:
            raise ValueError(f"recipe {display}: the header has two lines `# {tag}:`")
        else:
            tags[tag] = text
    header = RecipeHeader(
        name=display,
        title=" ".join(title),
        commands=tuple(commands),
        scores=tuple(scores),
        no_score=tags.get("score", ""),
        source=tags.get("source", ""),
        program=tags.get("program", ""),
        differs=tags.get("differs", ""),
        measured=tags.get("measured", ""),
        after=tags.get("after", ""),
    )
    _check(header)
    return header


def _check(header: RecipeHeader) -> None:
    if header.scores and header.no_score:
        raise ValueError(f"recipe {header.name}: the header has a score and {header.no_score!r}")
    if header.scores and not _SOURCE.fullmatch(header.source):
        raise ValueError(
            f"recipe {header.name}: a score needs `# source: PAGE, YYYY-MM-DD, commit HASH` "
            f"(or arXiv NUMBERvN), found {header.source or 'nothing'}"
        )


def recipe_name(path: Path) -> str:
    """Return the name of a shipped recipe, or the path of any other file."""
    resolved = path.resolve()
    if resolved.is_relative_to(RECIPE_FOLDER):
        return resolved.relative_to(RECIPE_FOLDER).with_suffix("").as_posix()
    return str(path)


def _entries(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (tag, condition, text); the tag of a description is empty, that of a command fixed."""
    entry: tuple[str, str, str] | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        match = _TAG.fullmatch(line)
        indented = line.startswith("#   ")
        text = line[1:].strip()
        if match is None and indented and entry and (entry[0] in TAGS or entry[2].endswith("\\")):
            entry = (entry[0], entry[1], f"{entry[2].removesuffix(chr(92)).rstrip()} {text}")
            continue
        if entry:
            yield entry
        if match:
            entry = (match[1], match[2] or "", match[3])
        else:
            entry = ("command" if indented else "", "", text)
    if entry:
        yield entry


def _parse_score(name: str, condition: str, text: str) -> Score:
    values = []
    for part in text.split(", "):
        match = _VALUE.fullmatch(part)
        if match is None or not 0 <= float(match[2]) <= 100:
            raise ValueError(f"recipe {name}: cannot read the score {part!r}; write `Rank-1 94.4`")
        values.append((match[1], float(match[2])))
    return Score(condition, tuple(values), text)
