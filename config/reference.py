"""The reference of all configuration keys, as Markdown: defaults, allowed values, comments.

`python -m ember_reid.config.reference > docs/reference/configuration.md` writes the page.
"""

import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from ember_reid.config.defaults import get_defaults
from ember_reid.config.node import Config
from ember_reid.config.schema import CHECKS

SOURCES = ("defaults.py", "defaults_model.py", "defaults_training.py")
_ASSIGNMENT = re.compile(r"(?:_C\.)?([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)*) = ")
_HEAD = """# Configuration keys

Generated from `config/defaults.py` and `config/schema.py`. Every key can be set in a recipe, or on
the command line as `KEY VALUE` or `KEY=VALUE`.
"""


def key_comments() -> dict[str, str]:
    """Return the comment above each key and group in the sources of the defaults."""
    comments: dict[str, str] = {}
    for name in SOURCES:
        lines: list[str] = []
        for line in (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines():
            match = _ASSIGNMENT.match(line)
            if line.startswith("# "):
                lines.append(line[2:])
                continue
            if match and lines:
                comments[match.group(1)] = " ".join(lines)
            lines = []
    return comments


def configuration_reference() -> str:
    """Return the page: one section per top-level group, one entry per key."""
    defaults = get_defaults()
    comments = key_comments()
    parts = [_HEAD, "## General\n"]
    groups: list[str] = []
    for name, value in defaults.items():
        if isinstance(value, Config):
            groups += [f"## {name}\n", *_describe_group(name, value, comments)]
        else:
            parts.append(_describe_key(name, value, comments))
    return "\n".join([*parts, *groups])


def _describe_group(name: str, node: Config, comments: dict[str, str]) -> list[str]:
    parts = [f"{comments[name]}\n"] if name in comments else []
    for key, value in node.items():
        full = f"{name}.{key}"
        if isinstance(value, Config):
            parts += [f"### {full}\n", *_describe_group(full, value, comments)]
        else:
            parts.append(_describe_key(full, value, comments))
    return parts


def _describe_key(name: str, value: Any, comments: dict[str, str]) -> str:
    lines = [f"- `{name}`, default `{value!r}`"]
    if name in comments:
        lines.append(_wrap(comments[name]))
    lines.append(_wrap(f"Allowed: {CHECKS[name].describe()}."))
    # Two spaces at the end of a line are a line break.
    return "  \n".join(lines) + "\n"


def _wrap(text: str) -> str:
    return textwrap.fill(text, 97, initial_indent="  ", subsequent_indent="  ")


if __name__ == "__main__":
    sys.stdout.write(configuration_reference())
