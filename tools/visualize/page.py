"""Ranked lists as an HTML page."""

from collections.abc import Sequence
from pathlib import Path

from ember_reid.engine.montage import Loader, captions, describe
from ember_reid.engine.ranked_lists import RankedQuery
from ember_reid.tools.common.html import Figure, Section, image_source, write_gallery


def write_page(
    path: Path,
    lists: Sequence[RankedQuery],
    load_query: Loader,
    load_gallery: Loader,
    *,
    title: str,
    facts: Sequence[str] = (),
) -> None:
    """Write the page; it contains its images.

    Args:
        path: the file.
        lists: ranked lists.
        load_query, load_gallery: position -> image.
        title: title of the page.
        facts: paragraphs below the title.
    """
    sections = [create_section(ranked, load_query, load_gallery) for ranked in lists]
    write_gallery(path, sections, title=title, facts=facts)


def create_section(ranked: RankedQuery, load_query: Loader, load_gallery: Loader) -> Section:
    """A query and its nearest gallery entries."""
    lines = ("query", f"id {ranked.pid}, cam {ranked.camid + 1}")
    figures = [Figure(image_source(load_query(ranked.index)), "query", lines)]
    for place, entry in enumerate(ranked.entries, start=1):
        kind = "right" if entry.correct else "wrong"
        source = image_source(load_gallery(entry.index))
        figures.append(Figure(source, kind, captions(place, entry)))
    return Section(describe(ranked), tuple(figures))
