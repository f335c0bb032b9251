"""A hook of MkDocs (see mkdocs.yml): the start page of the site is the README, so it is written once."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

README = Path(__file__).resolve().parents[1] / "README.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add index.md, whose links are those of the README as seen from docs/."""
    text = README.read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files
