"""Ranked lists of gallery entries, right ones framed green, wrong ones red, drawn as images.

`ranked_lists` chooses queries and ranks the gallery for each by the same rules as the scores.
`draw_ranked_list` and `draw_montage` draw them; tools.visualize writes them as an HTML page.
Letters: Q queries, G gallery entries, D dimensions of an embedding.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ember_reid.evaluate import QueryGallery, label_pairs
from PIL import Image, ImageDraw, ImageFont

CHOICES = ("best", "worst", "random")
GREEN, RED, BLUE = (38, 160, 76), (214, 52, 48), (58, 96, 190)
TILE = (80, 160)  # width and height of a picture in a drawn list
FRAME, GAP, CAPTION = 4, 8, 30
Loader = Callable[[int], Image.Image]  # position in the query set or the gallery -> RGB picture


class Answer(NamedTuple):
    """One entry of a ranked list."""

    index: int  # position in the gallery
    pid: int
    camid: int
    distance: float
    correct: bool


class RankedQuery(NamedTuple):
    """A query and the start of its ranked gallery."""

    index: int  # position in the query set
    pid: int
    camid: int
    choice: str  # how it was chosen: best, worst or random
    ap: float  # average precision over the whole gallery, in [0, 1]
    num_matches: int
    answers: tuple[Answer, ...]


def ranked_lists(
    query_features,
    gallery_features,
    query_pids,
    gallery_pids,
    query_camids,
    gallery_camids,
    *,
    queries: str = "random",
    count: int = 10,
    top: int = 10,
    metric: str = "cosine",
    protocol: str = "cross-camera",
    seed: int = 0,
) -> list[RankedQuery]:
    """Chooses `count` queries and ranks the gallery for each; in the order of their choice: best first, worst
    first.

    Args:
        query_features, gallery_features: [Q, D], [G, D], arrays or CPU tensors.
        query_pids, ...: integers [Q], [G]. Gallery entries with pid -1 (junk) are left out for every query.
        queries: best | worst (by average precision) | random (by `seed`). Queries without a match are never
            chosen.
        metric: cosine (1 - cosine) | euclidean.
        protocol: cross-camera leaves out the query's own identity under its own camera | all keeps it.

    Raises ValueError for an unknown choice, arrays that do not fit together, and when no query has a match.
    """
    _check_choice("queries", queries, CHOICES)
    _check_choice("metric", metric, ("cosine", "euclidean"))
    _check_choice("protocol", protocol, ("cross-camera", "all"))
    query, gallery = (
        np.asarray(features, dtype=np.float32) for features in (query_features, gallery_features)
    )
    pids, gallery_pids, camids, gallery_camids = (
        np.asarray(ids, dtype=np.int64)
        for ids in (query_pids, gallery_pids, query_camids, gallery_camids)
    )
    _check_shapes(query, gallery, pids, gallery_pids, camids, gallery_camids)
    if metric == "cosine":
        query, gallery = _normalized(query), _normalized(gallery)

    ruling = QueryGallery(query, gallery, pids, gallery_pids, camids, gallery_camids)
    if protocol == "all":
        ruling = ruling.ignore_cameras()

    def rank(index: int) -> RankedQuery | None:
        is_match, is_excluded = label_pairs(
            pids[index], gallery_pids, ruling.query_camids[index], ruling.gallery_camids
        )
        kept = np.flatnonzero(~is_excluded)
        distances = _distances(query[index], gallery[kept], metric)
        order = np.argsort(distances, kind="stable")
        correct = is_match[kept[order]]
        if not correct.any():
            return None
        places = np.flatnonzero(correct)
        answers = tuple(
            Answer(
                int(kept[k]),
                int(gallery_pids[kept[k]]),
                int(gallery_camids[kept[k]]),
                float(distances[k]),
                bool(hit),
            )
            for k, hit in zip(order[:top], correct, strict=False)
        )
        ap = float(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
        return RankedQuery(
            index, int(pids[index]), int(camids[index]), queries, ap, len(places), answers
        )

    if queries == "random":
        shuffled = np.random.default_rng(seed).permutation(len(query)).tolist()
        chosen = _first(count, (rank(index) for index in shuffled))
    else:
        ranked = [found for index in range(len(query)) if (found := rank(index)) is not None]
        chosen = sorted(ranked, key=lambda one: one.ap, reverse=queries == "best")[:count]
    if not chosen:
        raise ValueError(
            f"None of the {len(query)} queries has a match in the gallery of {len(gallery)} under the "
            f"protocol '{protocol}', so there is no list to show"
        )
    return chosen


def _first(count: int, candidates: Iterator[RankedQuery | None]) -> list[RankedQuery]:
    found: list[RankedQuery] = []
    for candidate in candidates:
        if len(found) >= count:
            break
        if candidate is not None:
            found.append(candidate)
    return found


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is '{value}', it must be one of {', '.join(choices)}")


def _check_shapes(query, gallery, pids, gallery_pids, camids, gallery_camids) -> None:
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"features must be [Q, D] and [G, D], they are {query.shape} and {gallery.shape}"
        )
    for name, ids, features in (
        ("query_pids", pids, query),
        ("query_camids", camids, query),
        ("gallery_pids", gallery_pids, gallery),
        ("gallery_camids", gallery_camids, gallery),
    ):
        if ids.shape != (len(features),):
            raise ValueError(
                f"{name} has the shape {ids.shape}, {len(features)} features need ({len(features)},)"
            )


def _normalized(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _distances(query: np.ndarray, gallery: np.ndarray, metric: str) -> np.ndarray:
    if metric == "cosine":
        return 1 - gallery @ query
    return np.sqrt(np.square(gallery - query).sum(axis=1))


def describe(ranked: RankedQuery) -> str:
    """One line about a query, as it stands above its list."""
    matches = "1 match" if ranked.num_matches == 1 else f"{ranked.num_matches} matches"
    return (
        f"{ranked.choice} query: identity {ranked.pid} under camera {ranked.camid + 1}, "
        f"AP {100 * ranked.ap:.1f}%, {matches} under other cameras"
    )


def draw_ranked_list(ranked: RankedQuery, load_query: Loader, load_gallery: Loader) -> Image.Image:
    """A strip: the query in a blue frame, then its answers in green and red frames, with captions."""
    width = (TILE[0] + 2 * FRAME + GAP) * (len(ranked.answers) + 1) + 2 * GAP
    strip = Image.new("RGB", (width, TILE[1] + 2 * FRAME + CAPTION + 20 + 2 * GAP), "white")
    draw = ImageDraw.Draw(strip)
    draw.text((GAP, GAP - 2), describe(ranked), fill=(20, 20, 20), font=ImageFont.load_default(13))
    tiles = [(load_query(ranked.index), BLUE, "query", f"id {ranked.pid}  cam {ranked.camid + 1}")]
    for place, answer in enumerate(ranked.answers, start=1):
        tiles.append(
            (
                load_gallery(answer.index),
                GREEN if answer.correct else RED,
                *captions(place, answer),
            )
        )
    left, top = GAP, 20 + GAP
    for number, (picture, color, *lines) in enumerate(tiles):
        strip.paste(_framed(picture, color), (left, top))
        for row, line in enumerate(lines):
            at = (left + 1, top + TILE[1] + 2 * FRAME + 2 + 13 * row)
            draw.text(
                at, line, fill=(60, 60, 60) if row else color, font=ImageFont.load_default(11)
            )
        left += TILE[0] + 2 * FRAME + (2 * GAP if number == 0 else GAP)
    return strip


def captions(place: int, answer: Answer) -> tuple[str, str]:
    """Two lines below an image. Words as well as colors: not everyone can tell red from green."""
    verdict = "right" if answer.correct else "wrong"
    return f"{place}. {verdict}  {answer.distance:.2f}", f"id {answer.pid}  cam {answer.camid + 1}"


def _framed(picture: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    framed = Image.new("RGB", (TILE[0] + 2 * FRAME, TILE[1] + 2 * FRAME), color)
    fitted = Image.new("RGB", TILE, (235, 235, 235))
    scale = min(TILE[0] / picture.width, TILE[1] / picture.height)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    shrunk = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    fitted.paste(shrunk, ((TILE[0] - size[0]) // 2, (TILE[1] - size[1]) // 2))
    framed.paste(fitted, (FRAME, FRAME))
    return framed


def draw_montage(
    lists: Sequence[RankedQuery], load_query: Loader, load_gallery: Loader
) -> Image.Image:
    """The strips of several queries below each other."""
    strips = [draw_ranked_list(ranked, load_query, load_gallery) for ranked in lists]
    height = sum(strip.height for strip in strips)
    montage = Image.new("RGB", (max(strip.width for strip in strips), height), "white")
    top = 0
    for strip in strips:
        montage.paste(strip, (0, top))
        top += strip.height
    return montage
