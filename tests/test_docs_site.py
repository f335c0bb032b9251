"""docs/ as a site: it builds with every link checked, fetches nothing, and names files and scores that are there."""

import logging
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ember_reid.config import load_config as load_recipe
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = "config|configs|data|docs|engine|evaluate|layers|modeling|solver|tests|tools"


class Fetched(HTMLParser):
    """What a browser would load for a page, links that a person follows left out."""

    def __init__(self, text: str):
        super().__init__()
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.sources += [
            value
            for name, value in attrs
            if value and (name == "src" or (name == "href" and tag == "link"))
        ]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """What the site is made of, as copies."""
    for name in ("mkdocs.yml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def make_site(folder: Path) -> Path:
    build(load_config(str(folder / "mkdocs.yml"), strict=True))
    return folder / "site"


def test_the_site_builds_and_fetches_nothing(checkout):
    site = make_site(checkout)
    pages = {path.stem for path in site.glob("*.html")} - {"404", "search"}
    assert pages == {"index"} | {path.stem for path in (ROOT / "docs").glob("*.md")}
    for page in site.glob("*.html"):
        fetched = Fetched(page.read_text(encoding="utf-8")).sources
        assert fetched and not [
            source for source in fetched if re.match(r"(https?:)?//", source)
        ], page.name
    start = (site / "index.html").read_text(encoding="utf-8")
    assert (
        'href="datasets.html"' in start
        and 'src="ranked.png"' in start
        and "docs/" not in "".join(re.findall(r'href="([^"#:]*)"', start))
    )
    assert not list(site.glob("*.py"))


@pytest.mark.parametrize(
    ("link", "warning"),
    [
        ("[gone](no_such_page.md)", "no_such_page.md"),
        ("[gone](datasets.md#no-such-heading)", "no-such-heading"),
    ],
)
def test_a_broken_link_stops_it(checkout, link, warning, caplog):
    with open(checkout / "docs" / "model_card.md", "a") as file:
        file.write(f"\n\n{link}\n")
    with caplog.at_level(logging.WARNING, "mkdocs"), pytest.raises(Abort):
        make_site(checkout)
    assert warning in caplog.text


def our_side(path: Path) -> str:
    """The text of a document; of tables that put another program beside ours, the right column."""
    text = path.read_text(encoding="utf-8")
    if path.name != "migration.md":
        return text
    return "\n".join(
        line.split("|")[2] if line.startswith("|") else line for line in text.splitlines()
    )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_files_and_keys_that_a_document_names_exist(path):
    text, defaults = our_side(path), load_recipe(None)
    for name in re.findall(rf"(?<![\w/.])((?:{FOLDERS})/[\w./-]+)(?![*\w])", text):
        if not name.startswith("data/cows") and "NAME" not in name:
            assert (ROOT / name.rstrip(".")).exists(), (
                f"{path.name} names {name}, which is not there"
            )
    for key in re.findall(r"`([A-Z_]+(?:\.[A-Z0-9_]+)+)[ `]", text):
        node = defaults
        for word in key.split("."):
            assert word in node, f"{path.name} names {key}, which is no key"
            node = node[word]
