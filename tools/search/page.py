"""Search results as an HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ember_reid.data.images import ImageError, open_image
from ember_reid.tools.common.html import Figure, Section, image_source, write_gallery

KINDS = {True: "right", False: "other", None: ""}
VERDICTS = {True: "same", False: "different", None: ""}


def write_page(path: Path, queries: Sequence[Mapping], *, facts: Sequence[str]) -> None:
    """Write the page; it contains its images. `queries` are those of search.json."""
    sections = [_create_section(query) for query in queries]
    write_gallery(path, sections, title="Search", facts=facts)


def _create_section(query: Mapping) -> Section:
    figures = [Figure(_load(query["path"]), "query", ("query",))]
    for match in query["matches"]:
        title = f"{match['rank']}. {match['distance']:.3f} {match['pid']} {VERDICTS[match['same']]}"
        lines = (" ".join(title.split()), match["path"])
        figures.append(Figure(_load(match["path"]), KINDS[match["same"]], lines))
    return Section(f"{query['path']}: {query['decision']}", tuple(figures))


def _load(path: str) -> str:
    """The image as a data URI, or "" if it cannot be read."""
    try:
        return image_source(open_image(Path(path)))
    except ImageError:
        return ""
