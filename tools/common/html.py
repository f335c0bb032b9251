"""HTML pages from Jinja2 templates; each file contains its style sheet and its images."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from ember_reid.data.images import ImageError, open_image
from ember_reid.engine.files import replace_text
from ember_reid.tools.common.cli import printable
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

TEMPLATES = Path(__file__).parent / "templates"
THUMBNAIL = (192, 256)


@dataclass(frozen=True)
class Figure:
    """An image with its caption.

    Attributes:
        source: a data URI, or "" if there is no image.
        kind: query (blue frame) | right (green) | wrong (red, dashed) | other (dashed) | "".
        lines: caption; the first line is bold.
    """

    source: str
    kind: str
    lines: tuple[str, ...]

    @property
    def alt(self) -> str:
        """Alternative text for the image."""
        return ", ".join(line for line in self.lines if line)


@dataclass(frozen=True)
class Section:
    """A heading and a row of figures."""

    title: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Table:
    """Cells with an optional header row."""

    head: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )


def render(template: str, content: Mapping[str, object]) -> Markup:
    """Render a template as HTML. Text is escaped, and control characters are removed."""
    return Markup(_environment().get_template(template).render(content))


def write_html(path: Path, template: str, content: Mapping[str, object]) -> None:
    """Render a template into a file, which is written completely or not at all."""
    replace_text(path, render(template, content))


def write_gallery(
    path: Path,
    sections: Sequence[Section],
    *,
    title: str,
    facts: Sequence[str] = (),
    wide: bool = False,
) -> None:
    """Write a page with rows of images.

    Args:
        path: the file.
        sections: rows with their headings.
        title: title of the page.
        facts: paragraphs below the title.
        wide: whether the images are wide.
    """
    content = {"title": title, "facts": facts, "sections": sections, "kind": "wide" if wide else ""}
    write_html(path, "gallery.html", content)


def image_source(
    image: Image.Image, *, quality: int = 85, size: tuple[int, int] = THUMBNAIL
) -> str:
    """A thumbnail of at most (width, height) as a data URI."""
    small = image.convert("RGB")
    small.thumbnail(size)
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode("ascii")


def load_thumbnail(path: Path, *, quality: int = 85, size: tuple[int, int] = THUMBNAIL) -> str:
    """A thumbnail of an image file as a data URI, or "" if it cannot be read."""
    try:
        return image_source(open_image(path), quality=quality, size=size)
    except ImageError:
        return ""
