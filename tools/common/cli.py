"""The command line of all tools: options, one-line errors, exit codes and safe output.

This module imports nothing large, so that help texts appear at once.
"""

import argparse
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TextIO

USER_ERROR = 2
INTERRUPTED = 130
MAX_ERROR_LENGTH = 1000
# Names of commands that differ from the names of their packages.
RENAMED = {"extract": "embed", "check_gpu": "check-gpu", "leave_one_out": "leave-one-out"}


def printable(text: object) -> str:
    r"""Text in which control and formatting characters are replaced by escapes such as \x1b.

    It cannot control a terminal. Line feeds and tabs are kept.
    """
    return "".join(
        letter
        if letter.isprintable() or letter in "\n\t"
        else letter.encode("unicode_escape").decode("ascii")
        for letter in str(text)
    )


def echo(text: object = "", *, file: TextIO | None = None) -> None:
    """Print a text with control characters escaped; see `printable`."""
    print(printable(text), file=file or sys.stdout, flush=True)


def describe(error: BaseException) -> str:
    """The message of an error on one line of at most `MAX_ERROR_LENGTH` characters."""
    from ember_reid.config.messages import describe_exception

    text = " ".join(printable(describe_exception(error)).split())
    return text if len(text) <= MAX_ERROR_LENGTH else text[:MAX_ERROR_LENGTH] + " ..."


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors. Values such as -1e-3 are not parsed as options."""

    def __init__(self, *, prog: str, description: str):
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # Python before 3.14 recognizes only -1 and -0.5.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> Any:
        """Exit with the message on one line."""
        line = describe(ValueError(message))
        self.exit(USER_ERROR, f"{_error_prefix(self.prog)}: {line}; see --help\n")


@dataclass(frozen=True)
class Command:
    """A command: `python -m tools.NAME`, or `ember-reid NAME`.

    Attributes:
        name: name of its package in tools/, with the subcommand if there is one.
        description: help text. Commands in it are written as `python -m tools.NAME`.
        add_options: declares the options.
        run: runs the command. It returns the exit code, or None for 0. ValueError and OSError are
            errors of the user.
        interrupted: message after Ctrl-C.
    """

    name: str
    description: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]
    interrupted: str = "interrupted"

    def main(self, argv: list[str] | None = None, *, prog: str | None = None) -> int:
        """Parse the arguments, run the command, and return the exit code.

        Args:
            argv: arguments, those of the process by default.
            prog: how the user called the command, for the help text and for errors.
        """
        prog = prog or default_prog(self.name)
        parser = Parser(prog=prog, description=adapt_commands(self.description, prog))
        self.add_options(parser)
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        options = parser.parse_intermixed_args(argv)
        try:
            return self.run(options) or 0
        except (ValueError, OSError, MemoryError) as error:
            if options.debug:
                traceback.print_exc()
            echo(f"{_error_prefix(prog)}: {describe(error)}", file=sys.stderr)
            return USER_ERROR
        except KeyboardInterrupt:
            echo(f"{_error_prefix(prog)}: {self.interrupted}", file=sys.stderr)
            return INTERRUPTED


@dataclass(frozen=True)
class CommandGroup:
    """Several commands with a common name. A command is imported when it is called.

    Attributes:
        name: see `Command`.
        description: help text.
        commands: subcommand -> ("module:function", summary of one line).
    """

    name: str
    description: str
    commands: Mapping[str, tuple[str, str]]

    def main(self, argv: list[str] | None = None, *, prog: str | None = None) -> int:
        """Call the subcommand that the first argument names, and return its exit code."""
        prog = prog or default_prog(self.name)
        name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
        if name in ("-h", "--help"):
            echo(self.help_text(prog))
            return 0
        if name not in self.commands:
            known = ", ".join(self.commands)
            echo(
                f"{_error_prefix(prog)}: there is no command {name[:60]!r}; known: {known}",
                file=sys.stderr,
            )
            return USER_ERROR
        module, _, function = self.commands[name][0].partition(":")
        return getattr(import_module(module), function)(rest, prog=f"{prog} {name}")

    def help_text(self, prog: str) -> str:
        """The description and one line per subcommand."""
        width = max(map(len, self.commands))
        lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in self.commands.items()]
        return "\n".join(
            [
                f"usage: {prog} COMMAND ...",
                "",
                adapt_commands(self.description, prog).strip(),
                "",
                "commands:",
                *lines,
                "",
                f"{prog} COMMAND --help shows the options and an example.",
            ]
        )


def default_prog(name: str) -> str:
    """`python -m tools.NAME`, with the package name that Python was called with."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    package, _, subcommand = name.partition(" ")
    called = getattr(spec, "parent", None) or ""
    module = called if called.endswith(f"tools.{package}") else f"tools.{package}"
    return f"python -m {module} {subcommand}".rstrip()


def adapt_commands(text: str, prog: str) -> str:
    """Rewrite the commands in a help text to the form that the user typed."""

    def rename(found: re.Match) -> str:
        return f"ember-reid {RENAMED.get(found[1], found[1])}"

    if prog.startswith("ember-reid"):
        text = re.sub(r"python -m tools\.(\w+)", rename, text)
    elif prog.startswith("python -m ember_reid."):
        text = text.replace("python -m tools.", "python -m ember_reid.tools.")
    return textwrap.dedent(text)


def _error_prefix(prog: str) -> str:
    """`ember-reid`, or the name of the tool."""
    return "ember-reid" if prog.startswith("ember-reid") else prog.rpartition("tools.")[2]


def add_recipe(parser: argparse.ArgumentParser, *, required: bool = False, text: str = "") -> None:
    """Declare `-c RECIPE`."""
    default = "a recipe" if required else "a recipe (default: the recipe in the checkpoint)"
    parser.add_argument("-c", "--config", metavar="RECIPE", required=required, help=text or default)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Declare the positional KEY VALUE words."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY VALUE",
        help="configuration keys and their values, see config/defaults.py",
    )


def check_at_least(options: argparse.Namespace, **minimums: int) -> None:
    """Raise ValueError if an option is below its minimum."""
    for name, minimum in minimums.items():
        value = getattr(options, name)
        if value is not None and value < minimum:
            raise ValueError(
                f"--{name.replace('_', '-')} is {value}, it must be at least {minimum}"
            )
