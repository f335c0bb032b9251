"""Draw ranked lists as one image: correct entries in green frames, wrong ones in red frames."""

from collections.abc import Callable, Sequence

from ember_reid.engine.ranked_lists import RankedEntry, RankedQuery
from PIL import Image, ImageDraw, ImageFont

GREEN, RED, BLUE = (38, 160, 76), (214, 52, 48), (58, 96, 190)
# Width and height of an image in a drawn list.
TILE = (80, 160)
FRAME, GAP, CAPTION = 4, 8, 30
# Index in the query set or the gallery -> RGB image.
Loader = Callable[[int], Image.Image]


def describe(ranked: RankedQuery) -> str:
    """One line about a query: the heading of its list."""
    matches = "1 match" if ranked.num_matches == 1 else f"{ranked.num_matches} matches"
    return (
        f"{ranked.choice} query: identity {ranked.pid} under camera {ranked.camid + 1}, "
        f"AP {100 * ranked.ap:.1f}%, {matches} under other cameras"
    )


def draw_ranked_list(ranked: RankedQuery, load_query: Loader, load_gallery: Loader) -> Image.Image:
    """Draw a query in a blue frame and its entries in green and red frames, with captions."""
    width = (TILE[0] + 2 * FRAME + GAP) * (len(ranked.entries) + 1) + 2 * GAP
    strip = Image.new("RGB", (width, TILE[1] + 2 * FRAME + CAPTION + 20 + 2 * GAP), "white")
    draw = ImageDraw.Draw(strip)
    draw.text((GAP, GAP - 2), describe(ranked), fill=(20, 20, 20), font=ImageFont.load_default(13))
    tiles = [(load_query(ranked.index), BLUE, "query", f"id {ranked.pid}  cam {ranked.camid + 1}")]
    for place, entry in enumerate(ranked.entries, start=1):
        tiles.append(
            (
                load_gallery(entry.index),
                GREEN if entry.correct else RED,
                *captions(place, entry),
            )
        )
    left, top = GAP, 20 + GAP
    for number, (image, color, *lines) in enumerate(tiles):
        strip.paste(_framed(image, color), (left, top))
        for row, line in enumerate(lines):
            at = (left + 1, top + TILE[1] + 2 * FRAME + 2 + 13 * row)
            draw.text(
                at, line, fill=(60, 60, 60) if row else color, font=ImageFont.load_default(11)
            )
        left += TILE[0] + 2 * FRAME + (2 * GAP if number == 0 else GAP)
    return strip


def captions(place: int, entry: RankedEntry) -> tuple[str, str]:
    """Two lines below an image; in words, because some people cannot tell red from green."""
    verdict = "right" if entry.correct else "wrong"
    return f"{place}. {verdict}  {entry.distance:.2f}", f"id {entry.pid}  cam {entry.camid + 1}"


def _framed(image: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    framed = Image.new("RGB", (TILE[0] + 2 * FRAME, TILE[1] + 2 * FRAME), color)
    fitted = Image.new("RGB", TILE, (235, 235, 235))
    scale = min(TILE[0] / image.width, TILE[1] / image.height)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    shrunk = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    fitted.paste(shrunk, ((TILE[0] - size[0]) // 2, (TILE[1] - size[1]) // 2))
    framed.paste(fitted, (FRAME, FRAME))
    return framed


def draw_montage(
    lists: Sequence[RankedQuery], load_query: Loader, load_gallery: Loader
) -> Image.Image:
    """Draw the lists of several queries below each other."""
    strips = [draw_ranked_list(ranked, load_query, load_gallery) for ranked in lists]
    height = sum(strip.height for strip in strips)
    montage = Image.new("RGB", (max(strip.width for strip in strips), height), "white")
    top = 0
    for strip in strips:
        montage.paste(strip, (0, top))
        top += strip.height
    return montage
