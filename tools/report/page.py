"""The report of tools.report as one HTML file: sections, tables, pictures, and filters in a few lines of JavaScript."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ember_reid.engine.ranked_lists import RankedQuery
from ember_reid.tools.common.charts import Line, histogram, line_chart
from ember_reid.tools.report.retrieval_analysis import KINDS, Examination
from ember_reid.tools.report.run_reader import Run, fingerprint, flatten
from ember_reid.tools.report.templates import PAGE, SCRIPT, STYLE
from PIL import Image

SCORES = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
KIND_NAMES = {
    "best": "best",
    "median": "median",
    "worst": "worst",
    "suspect": "likely label errors",
}
NUM_HISTOGRAM_BINS = 48


class Card(NamedTuple):
    """A run and what its network answers."""

    run: Run
    examinations: tuple[Examination, ...] = ()
    pictures: dict[
        str, dict[tuple[str, int], tuple[str, Image.Image]]
    ] = {}  # dataset -> see load_pictures
    heats: dict[
        str, dict[int, list[Image.Image]]
    ] = {}  # dataset -> query -> query and first answer
    trouble: str = ""


def write_page(path: Path, cards: Sequence[Card]) -> None:
    """Write the page of one run, or of several side by side."""
    names = unique_names([card.run for card in cards])
    sections = [_comparison(cards, names)] if len(cards) > 1 else []
    for card, name in zip(cards, names, strict=True):
        heading = f'<h1 id="{escape(name)}">{escape(name)}</h1>'
        sections.append(f'<article data-run="{escape(name)}">{heading}{_run(card)}</article>')
    page = PAGE.format(
        title=escape(" and ".join(names)),
        style=STYLE,
        script=SCRIPT,
        filters=_filters(cards, names),
        sections="\n".join(sections),
    )
    path.write_text(page, encoding="utf-8")


def unique_names(runs: Sequence[Run]) -> list[str]:
    """The runs' folder names, with their parents' where two are equal."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    return [str(run.folder) for run in runs]


def _filters(cards: Sequence[Card], names: Sequence[str]) -> str:
    """Buttons that show and hide ranked lists, and a search in their words."""
    lists = [ranked for card in cards for one in card.examinations for ranked in one.lists]
    if not lists and len(cards) < 2:
        return ""
    present = [kind for kind in KINDS if any(ranked.choice == kind for ranked in lists)]
    buttons = [_button("kind", kind, KIND_NAMES[kind]) for kind in present]
    if len(cards) > 1:
        buttons += [_button("run", name, name) for name in names]
    cameras = sorted({ranked.camid for ranked in lists})
    options = "".join(
        f'<option value="{camera}">camera {camera + 1}</option>' for camera in cameras
    )
    choose = f'<select id="camera" aria-label="camera of the query"><option value="">all cameras</option>{options}</select>'
    search = '<input id="words" type="search" placeholder="identity or file name" aria-label="identity or file name">'
    return f'<nav>{"".join(buttons)}{choose if lists else ""}{search if lists else ""}<output id="shown"></output></nav>'


def _button(group: str, value: str, text: str) -> str:
    value, text = escape(value, quote=True), escape(text)
    return f'<button type="button" data-group="{group}" data-value="{value}" aria-pressed="true">{text}</button>'


def _comparison(cards: Sequence[Card], names: Sequence[str]) -> str:
    """Scores, curves and recipes side by side."""
    runs = [card.run for card in cards]
    datasets = list(dict.fromkeys(name for run in runs for name in run.results))
    parts = ["<h1>Side by side</h1>"]
    for dataset in datasets:
        rows = [
            [name, *(_percent(run.results.get(dataset, {}).get(key)) for key in SCORES)]
            for name, run in zip(names, runs, strict=True)
        ]
        parts.append(f"<h2>Scores on {escape(dataset)}</h2>{_table(('run', *SCORES), rows)}")
    charts = [
        line_chart(
            "Loss", [_loss(run, name) for name, run in zip(names, runs, strict=True)], x="epoch"
        ),
    ]
    for dataset in datasets:
        lines = [_maps(run, dataset, name) for name, run in zip(names, runs, strict=True)]
        charts.append(line_chart(f"mAP on {dataset}", lines, x="epoch", percent=True))
        lines = [
            Line(name, _cmc(one.cmc))
            for name, card in zip(names, cards, strict=True)
            for one in card.examinations
            if one.name == dataset
        ]
        charts.append(line_chart(f"CMC on {dataset}", lines, x="rank", percent=True))
    parts.append(_charts(charts))
    flat = [flatten(run.config) for run in runs]
    keys = sorted(
        {key for one in flat for key in one if any(other.get(key) != one[key] for other in flat)}
    )
    rows = [[key, *(str(one.get(key, "")) for one in flat)] for key in keys if key != "OUTPUT_DIR"]
    parts.append("<h2>Where the recipes differ</h2>")
    parts.append(_table(("key", *names), rows) if rows else "<p>Nowhere.</p>")
    prints = [fingerprint(run) for run in runs]
    rows = [
        [key, *(one.get(key, "") for one in prints)]
        for key in dict.fromkeys(key for one in prints for key in one)
    ]
    parts.append(f"<h2>Fingerprints</h2>{_table(('', *names), rows)}")
    return f"<article>{''.join(parts)}</article>"


def _run(card: Card) -> str:
    """Everything about one run."""
    run = card.run
    parts = [f'<p class="trouble">{escape(card.trouble)}</p>' if card.trouble else ""]
    rows = [
        [
            dataset,
            *(_percent(scores.get(key)) for key in SCORES),
            scores.get("num_valid", ""),
            scores.get("num_gallery", ""),
        ]
        for name, result in run.results.items()
        for dataset, scores in ((name, result), (f"{name}, re-ranked", result.get("reranked")))
        if scores
    ]
    if rows:
        title = "Scores on each test set" if len(run.results) > 1 else "Scores"
        parts.append(f"<h2>{title}</h2>{_table(('test set', *SCORES, 'queries', 'gallery'), rows)}")
        if run.train:
            names = ", ".join(map(str, flatten(run.config).get("DATASETS.NAMES", ())))
            parts.append(
                f"<p>Of the weights at the end of the run, trained on {escape(names)}.</p>"
            )
    else:
        parts.append('<p class="trouble">There is no results.json: the run has not ended.</p>')
    if run.distillation.get("rows"):
        parts.append(_teachers(run.distillation))
    parts.append(_fingerprint(run))
    parts.append(_charts(_curves(run)))
    parts += [_examined(card, one) for one in card.examinations]
    if run.calibration:
        parts.append(_calibration(run.calibration))
    return "".join(parts)


def _fingerprint(run: Run) -> str:
    """What makes the scores comparable, and the whole recipe; folded, as it is long."""
    found = fingerprint(run)
    hints = ", ".join(
        f"{key.lower()} {found[key]}" for key in ("Seed", "Commit", "Scored by") if key in found
    )
    parts = [
        f"<details><summary><b>Fingerprint</b>: {escape(hints)}</summary>{_table((), list(found.items()))}</details>"
    ]
    if run.config:
        text = "\n".join(f"{key}: {value}" for key, value in sorted(flatten(run.config).items()))
        parts.append(
            f"<details><summary><b>The whole recipe</b></summary><pre>{escape(text)}</pre></details>"
        )
    return "".join(parts)


def _teachers(distillation: dict) -> str:
    rows = [
        [
            row["name"],
            _percent(row["mAP"]),
            _percent(row["rank1"]),
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['gflops']:.3g}",
            f"{row['milliseconds']:.2f}",
        ]
        for row in distillation["rows"]
    ]
    head = ("network", "mAP", "Rank-1", "parameters, M", "GFLOPs", "ms an image")
    return f"<h2>Teacher and student on {escape(str(distillation.get('dataset', '')))}</h2>{_table(head, rows)}"


def _curves(run: Run) -> list[str]:
    last = run.train[-1] if run.train else {}
    terms = [
        key
        for key in last
        if key not in ("epoch", "iteration", "loss", "accuracy", "lr", "images_per_second")
    ]
    losses = [
        _loss(run, "all"),
        *(Line(key, _by_epoch(run, key)) for key in terms if len(terms) > 1),
    ]
    return [
        line_chart("Loss", losses, x="epoch"),
        line_chart("Learning rate", [Line("base", _by_epoch(run, "lr"))], x="epoch"),
        line_chart(
            "Training accuracy",
            [Line("accuracy", _by_epoch(run, "accuracy"))],
            x="epoch",
            percent=True,
        ),
        line_chart("mAP", [_maps(run, name, name) for name in run.tests], x="epoch", percent=True),
    ]


def _by_epoch(run: Run, key: str) -> tuple[tuple[float, float], ...]:
    """(epochs done, value), thinned to at most some 400 points."""
    rows = [row for row in run.train if isinstance(row.get(key), int | float)]
    if not rows:
        return ()
    length = max(
        row["iteration"] / max(row["epoch"], 1) for row in rows
    )  # iterations of an epoch, from its last line
    step = max(len(rows) // 400, 1)
    return tuple((row["iteration"] / length, row[key]) for row in rows[::step])


def _loss(run: Run, name: str) -> Line:
    return Line(name, _by_epoch(run, "loss"))


def _maps(run: Run, dataset: str, name: str) -> Line:
    return Line(
        name,
        tuple((row["epoch"], row["mAP"]) for row in run.tests.get(dataset, ()) if "mAP" in row),
    )


def _cmc(cmc: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple((rank, float(value)) for rank, value in enumerate(cmc[:20], start=1))


def _examined(card: Card, one: Examination) -> str:
    """What a test set shows: curves, cameras, sizes, ranked lists."""
    charts = [
        line_chart("CMC", [Line(one.name, _cmc(one.cmc))], x="rank", percent=True),
        _distances(one),
    ]
    rows = [[label, str(count), _percent(value)] for label, (value, count) in one.sizes.items()]
    weights = f"{card.run.weights.name}, " if card.run.weights else ""
    score = f"<p>What follows is of {weights}mAP {_percent(one.mAP)}, Rank-1 {_percent(one.cmc[0])}.</p>"
    parts = [f"<h2>Looking closer at {escape(one.name)}</h2>{score}{_charts(charts)}"]
    if one.protocol not in ("cross-camera", "all"):
        parts.append(
            f"<p>Its score is of the protocol {escape(one.protocol)}; this part follows the cross-camera rule.</p>"
        )
    parts.append(_camera_table(one))
    parts.append(
        f"<h3>Queries by their number of matches</h3>{_table(('matches', 'queries', 'mAP'), rows)}"
    )
    parts.append(
        "<h3>Ranked lists</h3><p>Blue: the query. Green: right. Red, dashed: wrong. The number is the distance, smaller is "
        "closer. Best, median and worst by average precision. "
        f"{'' if one.notes else 'No query looks like a label error.'}</p>"
    )
    pictures, heats = card.pictures.get(one.name, {}), card.heats.get(one.name, {})
    parts += [_ranked(ranked, one, pictures, heats.get(ranked.index, [])) for ranked in one.lists]
    return "".join(parts)


def _distances(one: Examination) -> str:
    """The histogram of distances, cut to where there are any."""
    counts = {
        "same identity": one.histograms.same.sum(axis=0),
        "different": one.histograms.different.sum(axis=0),
    }
    used = np.flatnonzero(sum(counts.values()))
    if not len(used):
        return ""
    first, last = used[0], used[-1] + 1
    step = max(-(-(last - first) // NUM_HISTOGRAM_BINS), 1)
    starts = np.arange(first, last, step)
    edges = one.histograms.edges[
        np.minimum(np.append(starts, starts[-1] + step), len(one.histograms.edges) - 1)
    ]
    merged = {
        name: np.add.reduceat(values[: starts[-1] + step], starts)
        for name, values in counts.items()
    }
    return histogram(
        "Distances of pairs",
        edges.tolist(),
        {k: v.tolist() for k, v in merged.items()},
        x="distance",
    )


def _camera_table(one: Examination) -> str:
    """mAP by camera of the query (rows) and of the gallery (columns), darker for worse."""
    if not one.camera_pairs:
        return ""
    cameras = sorted({camera for pair in one.camera_pairs for camera in pair})
    rows = []
    for asks in cameras:
        cells = [f"<th>{asks + 1}</th>"]
        for answers in cameras:
            value, count = one.camera_pairs.get((asks, answers), (None, 0))
            if value is None:
                cells.append("<td></td>")
            else:
                style = f"background:rgba(214,52,48,{0.75 * (1 - value):.2f})"
                cells.append(f'<td style="{style}" title="{count} queries">{100 * value:.1f}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{camera + 1}</th>" for camera in cameras)
    return (
        "<h3>Camera pairs</h3><p>mAP in % when only one camera answers. Rows: the query's camera; columns: that of the "
        f'gallery. Redder is worse.</p><div class="scroll"><table class="cameras"><tr><th></th>{head}</tr>'
        f"{''.join(rows)}</table></div>"
    )


def _ranked(
    ranked: RankedQuery, one: Examination, pictures: dict, heats: Sequence[Image.Image]
) -> str:
    name, picture = pictures.get(("query", ranked.index), ("", None))
    figures = [_picture(picture, "query", "query", ranked.pid, ranked.camid, name)]
    words = [str(ranked.pid), name]
    for place, answer in enumerate(ranked.answers, start=1):
        name, picture = pictures.get(("gallery", answer.index), ("", None))
        words.append(name)
        verdict = "right" if answer.correct else "wrong"
        first = f"{place}. {verdict} {answer.distance:.2f}"
        figures.append(_picture(picture, verdict, first, answer.pid, answer.camid, name))
    kind = "likely label error" if ranked.choice == "suspect" else f"{ranked.choice} query"
    matches = "1 match" if ranked.num_matches == 1 else f"{ranked.num_matches} matches"
    title = f"{kind}: identity {ranked.pid} under camera {ranked.camid + 1}, AP {100 * ranked.ap:.1f}%, {matches}"
    note = f"<p>{escape(one.notes[ranked.index])}</p>" if ranked.choice == "suspect" else ""
    shown = "".join(
        f'<figure><img src="{_source(heat)}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
        for heat, caption in zip(
            heats, ("what the query rests on", "what its first answer rests on"), strict=False
        )
    )
    heat_row = (
        f'<details><summary>Heat-maps</summary><div class="row">{shown}</div></details>'
        if shown
        else ""
    )
    search = escape(" ".join(words).lower(), quote=True)
    return (
        f'<section class="list" data-kind="{ranked.choice}" data-camera="{ranked.camid}" data-words="{search}">'
        f'<h4>{escape(title)}</h4>{note}<div class="row">{"".join(figures)}</div>{heat_row}</section>'
    )


def _picture(
    picture: Image.Image | None, kind: str, first: str, pid: int, camid: int, name: str
) -> str:
    lines = f"<b>{escape(first)}</b><br>id {pid}, cam {camid + 1}<br><small>{escape(name)}</small>"
    source = _source(picture) if picture is not None else ""
    alt = escape(f"{first}, identity {pid}", quote=True)
    return f'<figure class="{kind}"><img src="{source}" alt="{alt}"><figcaption>{lines}</figcaption></figure>'


def _source(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode("ascii")


def _calibration(calibration: dict) -> str:
    rows = [
        [f"{row['fmr']:g}", f"{row['threshold']:.4f}", _percent(row["fnmr"])]
        for row in calibration.get("fnmr_at_fmr", ())
    ]
    said = f"Two pictures are taken for the same up to a distance of {calibration.get('threshold', float('nan')):.4f}, which "
    said += f"lets a share of {calibration.get('false_match_rate', float('nan')):g} of different pairs through."
    head = ("false matches", "threshold", "missed matches")
    return f"<h2>Same or not</h2><p>{escape(said)}</p>{_table(head, rows)}"


def _charts(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    top = f"<tr>{''.join(f'<th>{escape(str(cell))}</th>' for cell in head)}</tr>" if head else ""
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="scroll"><table>{top}{body}</table></div>'


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}%"
