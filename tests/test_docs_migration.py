"""Keys and recipes that the documents name exist."""

import re
from pathlib import Path

import pytest

from config import load_config

ROOT = Path(__file__).resolve().parents[1]


def our_side(name: str) -> str:
    """The text of a document; of tables that put another program beside ours, the right column."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    if name != "migration.md":
        return text
    return "\n".join(line.split("|")[2] if line.startswith("|") else line for line in text.splitlines())


@pytest.mark.parametrize("name", ["migration.md", "troubleshooting.md", "evaluation.md"])
def test_keys_and_recipes_exist(name):
    text, cfg = our_side(name), load_config(None)
    keys = re.findall(r"`([A-Z_]+(?:\.[A-Z0-9_]+)+)[ `]", text)
    assert len(keys) > 5
    for key in keys:
        node = cfg
        for word in key.split("."):
            assert word in node, f"{name} names {key}, which is no key"
            node = node[word]
    for recipe in re.findall(r"configs/[\w/.-]+\.yml", text):
        assert (ROOT / recipe).is_file(), f"{name} names {recipe}, which is no recipe"
    for tool in re.findall(r"python -m (tools\.\w+)", text):
        assert (ROOT / tool.replace(".", "/")).with_suffix(".py").is_file(), f"{name} names {tool}"
    for link in re.findall(r"\]\((\w+\.md)\)", text):
        assert (ROOT / "docs" / link).is_file(), f"{name} links to {link}"
