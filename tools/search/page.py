"""Search results as an HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ember_reid.tools.common.html import Figure, Section, load_thumbnail, write_gallery

KINDS = {True: "right", False: "other", None: ""}
VERDICTS = {True: "same", False: "different", None: ""}


def write_page(path: Path, queries: Sequence[Mapping], *, facts: Sequence[str]) -> None:
    """Write the page; it contains its images. `queries` are those of search.json."""
    sections = [_create_section(query) for query in queries]
    write_gallery(path, sections, title="Search", facts=facts)


def _create_section(query: Mapping) -> Section:
    figures = [Figure(load_thumbnail(Path(query["path"])), "query", ("query",))]
    for match in query["matches"]:
        title = f"{match['rank']}. {match['distance']:.3f} {match['pid']} {VERDICTS[match['same']]}"
        lines = (" ".join(title.split()), match["path"])
        figures.append(Figure(load_thumbnail(Path(match["path"])), KINDS[match["same"]], lines))
    return Section(f"{query['path']}: {query['decision']}", tuple(figures))
