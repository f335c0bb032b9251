"""Arguments of the commands: options with unusual values, and files of other kinds."""

import argparse
import os
import shutil
from importlib import import_module

import pytest
from ember_reid.tools.common.cli import Command, CommandGroup
from ember_reid.tools.gallery import command as gallery
from hypothesis import given
from hypothesis import strategies as st

from ember_reid import cli
from tests.hostile import strategies
from tests.hostile.harness import check

# Commands that do not train or measure for minutes when their arguments are right.
COMMANDS = ("explain", "doctor", "report", "visualize", "heatmaps", "calibrate")
COMMANDS += ("convert", "export", "embed", "search", "test", "resume", "train", "crops", "label")
COMMANDS += tuple(f"gallery {name}" for name in gallery.COMMANDS)

if os.environ.get("HOSTILE_PROFILE") == "long":
    # It reads all recipes, which takes a third of a second.
    COMMANDS += ("recipes",)


def find_command(target: str) -> Command | CommandGroup:
    """The command whose `main` is "module:function"."""
    module, _, function = target.partition(":")
    return getattr(import_module(module), function).__self__


def options_of(name: str) -> list[str]:
    """The option strings of a command, such as "--out"."""
    first, _, second = name.partition(" ")
    command = find_command(cli._COMMANDS[first][0])
    if isinstance(command, CommandGroup):
        command = find_command(command.commands[second][0])
    parser = argparse.ArgumentParser()
    command.add_options(parser)
    return [text for action in parser._actions for text in action.option_strings]


@pytest.fixture(scope="session")
def inputs(hostile_folder, tiny_run, tiny_recipe, tiny_market):
    """Names of files and folders of all kinds, relative to the current folder."""
    folder = hostile_folder / "inputs"
    folder.mkdir()
    shutil.copy(tiny_run / "checkpoints" / "best.pt", folder / "best.pt")
    shutil.copy(tiny_recipe, folder / "tiny.yml")
    shutil.copy(next((tiny_market / "query").glob("*.jpg")), folder / "a.jpg")
    (folder / "a.csv").write_text("path,pid,camid,split\na.jpg,1,1,train\n")
    (folder / "empty.npz").write_bytes(b"")
    (folder / "latin.csv").write_bytes(b"path\n\xe9.jpg\n")
    words = ["gallery", "add", folder / "people.db", f"weights={folder / 'best.pt'}"]
    assert cli.main([*map(str, words), "--name", "Anna", str(folder / "a.jpg")]) == 0
    (folder / "folder").mkdir()
    return [f"inputs/{path.name}" for path in sorted(folder.iterdir())]


def argument_words(name, inputs):
    """Words of a command line: options of the command, files, keys and unusual texts."""
    words = st.sampled_from([*options_of(name), *options_of(name), *inputs, *inputs, "DEVICE"])
    values = strategies.numbers.map(strategies.as_word) | strategies.texts.map(strategies.as_word)
    return st.lists(words | values, max_size=6)


@pytest.mark.parametrize("name", COMMANDS)
@given(data=st.data())
def test_arguments(name, data, inputs):
    words = data.draw(argument_words(name, inputs))
    check(f"arguments, {name}", cli.main, [*name.split(), *words], allowed=(0, 1, 2))


@given(words=st.lists(strategies.texts.map(strategies.as_word), max_size=4))
def test_commands(words):
    check("arguments, ember-reid", cli.main, words)
