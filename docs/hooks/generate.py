"""MkDocs hook: pages that are generated from the program, and the start page from the README.

mkdocstrings reads a copy of the package that has its installed layout.
"""

import contextlib
import importlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("config", "data", "engine", "evaluate", "layers", "modeling", "solver", "tools")
COMMANDS = "reference/commands.md"
HELP_COLUMNS = "96"
# Documents at the top of the repository -> pages of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}

_installed = tempfile.TemporaryDirectory(prefix="ember-reid-docs-")


# Before mkdocstrings reads its paths.
@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let mkdocstrings find the package."""
    package = Path(_installed.name) / "ember_reid"
    if not package.exists():
        shutil.copytree(ROOT / "ember_reid", package, ignore=ignore_all_but_python)
        shutil.copy(ROOT / "main.py", package)
        for name in FOLDERS:
            shutil.copytree(ROOT / name, package / name, ignore=ignore_all_but_python)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [_installed.name]
    return config


def ignore_all_but_python(folder: str, names: list[str]) -> list[str]:
    """The names in `folder` that are neither Python files nor folders."""
    return [
        name for name in names if not name.endswith(".py") and not os.path.isdir(f"{folder}/{name}")
    ]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents at the top of the repository, and the page of all commands."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=adapt_links(text)))
    files.append(File.generated(config, COMMANDS, content=describe_commands()))
    return files


def adapt_links(text: str) -> str:
    """Links of a document at the top of the repository, as seen from docs/."""
    for name, page in PAGES.items():
        text = text.replace(f"]({name})", f"]({page})")
    text = re.sub(r"\[([^]]+)\]\((?:LICENSE|CITATION\.cff)\)", r"\1", text)
    return text.replace("](docs/", "](")


def describe_commands() -> str:
    """The help texts of all commands as a page."""
    cli = importlib.import_module("ember_reid.cli")
    parts = [
        "# Commands",
        "Every command prints this text with `--help`. In a checkout, `python -m tools.NAME` is "
        "the same command. A user error is one line, and the exit code is 2.",
        fenced(help_text(cli.main, ["--help"])),
    ]
    for name in cli.COMMANDS.commands:
        parts += [f"## {name}", fenced(help_text(cli.main, [name, "--help"]))]
    return "\n\n".join(parts) + "\n"


def fenced(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def help_text(main: Callable[[list[str]], int], words: list[str]) -> str:
    """What a command prints."""
    printed = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = HELP_COLUMNS
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main(words)
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return printed.getvalue()
