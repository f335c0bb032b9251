"""The site builds with every link checked, loads nothing from elsewhere, and names what exists."""

import json
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
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FOLDERS = "config|configs|data|docs|engine|evaluate|layers|modeling|solver|tests|tools"
# Pages that the hook writes: see docs/hooks/generate.py.
GENERATED = {"index", "contributing", "changelog", "reference/commands"}
COLUMNS = 100
MAX_LINES = {
    "README.md": 120,
    "docs/benchmarks/performance.md": 100,
    "docs/explanation/distillation.md": 120,
}


class Loaded(HTMLParser):
    """What a browser loads for a page, without the links that a person follows."""

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


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The sources of the site, as copies and links."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*FOLDERS.split("|"), "main.py", "ember_reid"):
        if name != "docs":
            (folder / name).symlink_to(ROOT / name)
    return folder


def make_site(folder: Path) -> Path:
    build(load_config(str(folder / "mkdocs.yml"), strict=True))
    return folder / "site"


@pytest.fixture(scope="module")
def site(checkout) -> Path:
    return make_site(checkout)


def test_every_document_is_a_page(site):
    pages = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    docs = ROOT / "docs"
    written = {path.relative_to(docs).with_suffix("").as_posix() for path in docs.rglob("*.md")}
    assert pages - {"404"} == GENERATED | written
    assert not list(site.rglob("*.py"))


def test_pages_have_no_external_resources(site):
    for page in site.rglob("*.html"):
        sources = Loaded(page.read_text(encoding="utf-8")).sources
        assert sources
        assert not [source for source in sources if re.match(r"(https?:)?//", source)], page.name


def test_the_start_page_is_the_readme(site):
    start = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="tutorials/quickstart.html"' in start and 'src="images/ranked.png"' in start
    assert "docs/" not in "".join(re.findall(r'href="([^"#:]*)"', start))


def test_the_site_can_be_searched(site):
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    titles = {entry["title"] for entry in index["docs"]}
    assert {"Commands", "Metrics and re-ranking", "Distillation"} <= titles


def test_the_worker_for_pages_on_the_disk_is_defined_before_the_search_starts(site):
    scripts = re.findall(r'<script src="([^"]*)"', (site / "index.html").read_text("utf-8"))
    names = [Path(script).name.split(".")[0] for script in scripts]
    assert names.index("iframe-worker") < names.index("bundle")


def test_generated_pages_describe_the_program(site):
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for name in ("train", "doctor", "export", "search"):
        assert f"ember-reid {name}" in commands
    assert "--max-drop" in commands
    functions = (site / "reference" / "api.html").read_text(encoding="utf-8")
    for name in ("evaluate_features", "rank_metrics", "load_model", "load_config"):
        assert name in functions


def test_broken_links_are_errors(checkout, caplog):
    page = checkout / "docs/reference/model-card.md"
    text = page.read_text(encoding="utf-8")
    links = "[gone](no_such_page.md) [gone](datasets.md#no-such-heading)"
    page.write_text(f"{text}\n\n{links}\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING, "mkdocs"), pytest.raises(Abort):
        make_site(checkout)
    page.write_text(text, encoding="utf-8")
    assert "no_such_page.md" in caplog.text
    assert "no-such-heading" in caplog.text


@pytest.mark.parametrize(("name", "count"), MAX_LINES.items())
def test_pages_stay_short(name, count):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= count


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_prose_has_at_most_100_columns(path):
    """Tables and code are exempt."""
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith(("|", "    ", "#")):
            assert len(line) <= COLUMNS, f"{path.name}:{number}"


def our_side(path: Path) -> str:
    """The text of a document; of tables that show another program on the left, the right column."""
    text = path.read_text(encoding="utf-8")
    if path.name != "migrate.md":
        return text
    return "\n".join(
        line.split("|")[2] if line.startswith("|") else line for line in text.splitlines()
    )


# The history names files of its time, the ledger of recipes files of other programs.
@pytest.mark.parametrize(
    "path",
    [path for path in DOCUMENTS if path.parent.name != "history" and path.name != "recipes.md"],
    ids=lambda path: path.stem,
)
def test_files_and_keys_in_documents_exist(path):
    text, defaults = our_side(path), load_recipe(None)
    for name in re.findall(rf"(?<![\w/.])((?:{FOLDERS})/[\w./-]+)(?![*\w])", text):
        if not name.startswith("data/cows") and "NAME" not in name:
            assert (ROOT / name.rstrip(".")).exists(), f"{path.name}: {name} does not exist"
    for key in re.findall(r"`([A-Z_]+(?:\.[A-Z0-9_]+)+)[ `]", text):
        node = defaults
        for word in key.split("."):
            assert word in node, f"{path.name}: there is no key {key}"
            node = node[word]
