"""The report as an HTML page: scores, curves, recipes, and ranked lists with filters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ember_reid.engine.cross_domain import CROSS
from ember_reid.engine.ranked_lists import RankedQuery
from ember_reid.tools.common.charts import Line, histogram, line_chart
from ember_reid.tools.common.html import Figure, Table, image_source, write_html
from ember_reid.tools.report.clusters import cluster_table
from ember_reid.tools.report.retrieval_analysis import KINDS, RetrievalAnalysis
from ember_reid.tools.report.run_reader import Run, fingerprint, flatten
from PIL import Image

SCORES = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
KIND_NAMES = {
    "best": "best",
    "median": "median",
    "worst": "worst",
    "suspect": "likely label errors",
}
NOT_LOSSES = ("epoch", "iteration", "loss", "accuracy", "lr", "images_per_second")
NUM_HISTOGRAM_BINS = 48
MAX_POINTS = 400
# ("query" | "gallery", position) -> (file name, image)
Images = Mapping[tuple[str, int], tuple[str, Image.Image]]


@dataclass(frozen=True)
class RunReport:
    """A run, and the analysis of its network.

    Attributes:
        run: the files of the run.
        analyses: one per test set; empty without the network.
        images: dataset -> images of the ranked lists.
        heatmaps: dataset -> position of the query -> heatmaps of the query and its first match.
        problem: why the analysis is missing, or "".
    """

    run: Run
    analyses: tuple[RetrievalAnalysis, ...] = ()
    images: Mapping[str, Images] = field(default_factory=dict)
    heatmaps: Mapping[str, Mapping[int, Sequence[Image.Image]]] = field(default_factory=dict)
    problem: str = ""


def write_page(path: Path, reports: Sequence[RunReport]) -> None:
    """Write the page of one run, or of several side by side."""
    names = unique_names([report.run for report in reports])
    content = {
        "title": " and ".join(names),
        "filters": _filters(reports, names),
        "comparison": _compare(reports, names) if len(reports) > 1 else None,
        "runs": [_run(report, name) for report, name in zip(reports, names, strict=True)],
    }
    write_html(path, "report.html", content)


def unique_names(runs: Sequence[Run]) -> list[str]:
    """The names of the folders of the runs, or their paths if two names are equal."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    return [str(run.folder) for run in runs]


def _filters(reports: Sequence[RunReport], names: Sequence[str]) -> dict | None:
    """Buttons that show and hide ranked lists, and the cameras to choose from."""
    lists = [r for report in reports for one in report.analyses for r in one.lists]
    if not lists and len(reports) < 2:
        return None
    present = [kind for kind in KINDS if any(ranked.choice == kind for ranked in lists)]
    buttons = [{"group": "kind", "value": kind, "text": KIND_NAMES[kind]} for kind in present]
    if len(reports) > 1:
        buttons += [{"group": "run", "value": name, "text": name} for name in names]
    return {"buttons": buttons, "cameras": sorted({ranked.camid for ranked in lists})}


def _compare(reports: Sequence[RunReport], names: Sequence[str]) -> dict:
    """Scores, curves and recipes side by side."""
    runs = dict(zip(names, (report.run for report in reports), strict=True))
    datasets = list(dict.fromkeys(name for run in runs.values() for name in run.results))
    scores = [
        (dataset, Table(("run", *SCORES), tuple(_scores_of(runs, dataset)))) for dataset in datasets
    ]
    losses = [Line(name, _by_epoch(run, "loss")) for name, run in runs.items()]
    charts = [line_chart("Loss", losses, x="epoch")]
    for dataset in datasets:
        lines = [_map_curve(run, dataset, name) for name, run in runs.items()]
        charts.append(line_chart(f"mAP on {dataset}", lines, x="epoch", percent=True))
        lines = [
            Line(name, _cmc_points(one.cmc))
            for name, report in zip(names, reports, strict=True)
            for one in report.analyses
            if one.name == dataset
        ]
        charts.append(line_chart(f"CMC on {dataset}", lines, x="rank", percent=True))
    return {
        "scores": scores,
        "charts": [chart for chart in charts if chart],
        "differences": _differences(runs),
        "fingerprints": _fingerprints(runs),
    }


def _scores_of(runs: Mapping[str, Run], dataset: str) -> list[tuple[object, ...]]:
    return [
        (name, *(_percent(run.results.get(dataset, {}).get(key)) for key in SCORES))
        for name, run in runs.items()
    ]


def _differences(runs: Mapping[str, Run]) -> Table:
    """Configuration keys whose values differ."""
    flat = [flatten(run.config) for run in runs.values()]
    keys = sorted({key for one in flat for key in one} - {"OUTPUT_DIR"})
    differing = [key for key in keys if len({str(one.get(key, "")) for one in flat}) > 1]
    rows = tuple((key, *(str(one.get(key, "")) for one in flat)) for key in differing)
    return Table(("key", *runs), rows)


def _fingerprints(runs: Mapping[str, Run]) -> Table:
    prints = [fingerprint(run) for run in runs.values()]
    keys = dict.fromkeys(key for one in prints for key in one)
    rows = tuple((key, *(one.get(key, "") for one in prints)) for key in keys)
    return Table(("", *runs), rows)


def _run(report: RunReport, name: str) -> dict:
    """The content of the page about one run."""
    run = report.run
    found, flat = fingerprint(run), flatten(run.config)
    hints = (
        f"{key.lower()} {found[key]}" for key in ("Seed", "Commit", "Scored by") if key in found
    )
    trained_on = ", ".join(map(str, _sequence(flat.get("DATASETS.NAMES"))))
    return {
        "name": name,
        "problem": report.problem,
        "scores": _scores(run),
        "scores_title": "Scores on each test set" if len(run.results) > 1 else "Scores",
        "is_trained": bool(run.train),
        "trained_on": trained_on,
        "clusters": cluster_table(run.folder),
        "teachers": _teachers(run.distillation),
        "teachers_dataset": str(run.distillation.get("dataset", "")),
        "fingerprint": Table((), tuple(found.items())),
        "fingerprint_hint": ", ".join(hints),
        "recipe": "\n".join(f"{key}: {value}" for key, value in sorted(flat.items())),
        "charts": [chart for chart in _curves(run) if chart],
        "tests": [_test(report, one) for one in report.analyses],
        **_calibration(run.calibration),
    }


def _scores(run: Run) -> Table:
    """Scores on all test sets, with their domains and a mean if some are of other datasets."""
    tests = run.cross_domain.get("tests", {})
    rows = [
        (
            dataset,
            *([tests.get(name, {}).get("domain", "")] if tests else []),
            *(_percent(scores.get(key)) for key in SCORES),
            scores.get("num_valid", ""),
            scores.get("num_gallery", ""),
        )
        for name, result in run.results.items()
        for dataset, scores in ((name, result), (f"{name}, re-ranked", result.get("reranked")))
        if scores
    ]
    if not tests:
        return Table(("test set", *SCORES, "queries", "gallery"), tuple(rows))
    mean = run.cross_domain["mean"]
    rows.append(("mean", CROSS, *(_percent(mean.get(key)) for key in SCORES), "", ""))
    return Table(("test set", "domain", *SCORES, "queries", "gallery"), tuple(rows))


def _teachers(distillation: Mapping) -> Table | None:
    """Teachers and student side by side, None if the run has no teacher."""
    rows = tuple(
        (
            row["name"],
            _percent(row["mAP"]),
            _percent(row["rank1"]),
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['gflops']:.3g}",
            f"{row['milliseconds']:.2f}",
        )
        for row in distillation.get("rows", ())
    )
    head = ("network", "mAP", "Rank-1", "parameters, M", "GFLOPs", "ms per image")
    return Table(head, rows) if rows else None


def _curves(run: Run) -> list[str]:
    last = run.train[-1] if run.train else {}
    names = [key for key in last if key not in NOT_LOSSES]
    losses = [Line("all", _by_epoch(run, "loss"))]
    losses += [Line(name, _by_epoch(run, name)) for name in names if len(names) > 1]
    accuracy = [Line("accuracy", _by_epoch(run, "accuracy"))]
    maps = [_map_curve(run, name, name) for name in run.tests]
    return [
        line_chart("Loss", losses, x="epoch"),
        line_chart("Learning rate", [Line("base", _by_epoch(run, "lr"))], x="epoch"),
        line_chart("Training accuracy", accuracy, x="epoch", percent=True),
        line_chart("mAP", maps, x="epoch", percent=True),
    ]


def _by_epoch(run: Run, key: str) -> tuple[tuple[float, float], ...]:
    """Points (epoch, value), reduced to about `MAX_POINTS`."""
    rows = [row for row in run.train if isinstance(row.get(key), int | float)]
    if not rows:
        return ()
    # The last row of an epoch contains the number of iterations per epoch.
    length = max(row["iteration"] / max(row["epoch"], 1) for row in rows) or 1
    step = max(len(rows) // MAX_POINTS, 1)
    return tuple((row["iteration"] / length, row[key]) for row in rows[::step])


def _map_curve(run: Run, dataset: str, name: str) -> Line:
    rows = [row for row in run.tests.get(dataset, ()) if isinstance(row.get("mAP"), int | float)]
    return Line(name, tuple((row["epoch"], row["mAP"]) for row in rows))


def _cmc_points(cmc: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple((rank, float(value)) for rank, value in enumerate(cmc[:20], start=1))


def _test(report: RunReport, one: RetrievalAnalysis) -> dict:
    """The analysis of a test set: curves, cameras, numbers of matches, ranked lists."""
    rows = tuple((label, str(n), _percent(value)) for label, (value, n) in one.match_counts.items())
    weights = report.run.weights.name if report.run.weights else "the network"
    charts = [
        line_chart("CMC", [Line(one.name, _cmc_points(one.cmc))], x="rank", percent=True),
        _distance_chart(one),
    ]
    note = (
        ""
        if one.protocol in ("cross-camera", "all")
        else (f"The score uses the protocol {one.protocol}; this part uses the cross-camera rule.")
    )
    cameras = sorted({camera for pair in one.camera_pairs for camera in pair})
    return {
        "name": one.name,
        "summary": f"With {weights}: mAP {_percent(one.mAP)}, Rank-1 {_percent(one.cmc[0])}.",
        "charts": [chart for chart in charts if chart],
        "protocol_note": note,
        "cameras": cameras,
        "camera_rows": [
            (row, [one.camera_pairs.get((row, column)) for column in cameras]) for row in cameras
        ],
        "match_counts": Table(("matches", "queries", "mAP"), rows),
        "has_suspects": bool(one.notes),
        "lists": [_ranked(ranked, one, report) for ranked in one.lists],
    }


def _distance_chart(one: RetrievalAnalysis) -> str:
    """The histogram of distances, over the range that contains any."""
    counts = {
        "same identity": one.histograms.same.sum(axis=0),
        "different": one.histograms.different.sum(axis=0),
    }
    used = np.flatnonzero(counts["same identity"] + counts["different"])
    if not len(used):
        return ""
    first, last = used[0], used[-1] + 1
    step = max(-(-(last - first) // NUM_HISTOGRAM_BINS), 1)
    starts = np.arange(first, last, step)
    ends = np.minimum(np.append(starts, starts[-1] + step), len(one.histograms.edges) - 1)
    merged = {
        name: np.add.reduceat(values[: starts[-1] + step], starts).tolist()
        for name, values in counts.items()
    }
    edges = one.histograms.edges[ends].tolist()
    return histogram("Distances of pairs", edges, merged, x="distance")


def _ranked(ranked: RankedQuery, one: RetrievalAnalysis, report: RunReport) -> dict:
    """A ranked list with the text for the filters."""
    images = report.images.get(one.name, {})
    name, image = images.get(("query", ranked.index), ("", None))
    words = [str(ranked.pid), name]
    figures = [_figure(image, "query", ("query", _labels(ranked.pid, ranked.camid), name))]
    for place, entry in enumerate(ranked.entries, start=1):
        name, image = images.get(("gallery", entry.index), ("", None))
        words.append(name)
        kind = "right" if entry.correct else "wrong"
        lines = (f"{place}. {kind} {entry.distance:.2f}", _labels(entry.pid, entry.camid), name)
        figures.append(_figure(image, kind, lines))
    is_suspect = ranked.choice == "suspect"
    kind = "likely label error" if is_suspect else f"{ranked.choice} query"
    matches = "1 match" if ranked.num_matches == 1 else f"{ranked.num_matches} matches"
    heatmaps = report.heatmaps.get(one.name, {}).get(ranked.index, ())
    captions = ("image regions of the query", "image regions of its first match")
    return {
        "kind": ranked.choice,
        "camid": ranked.camid,
        "words": " ".join(words).lower(),
        "title": f"{kind}: identity {ranked.pid} under camera {ranked.camid + 1}, "
        f"AP {100 * ranked.ap:.1f}%, {matches}",
        "note": one.notes[ranked.index] if is_suspect else "",
        "figures": figures,
        "heatmaps": [
            _figure(heatmap, "", (text,)) for heatmap, text in zip(heatmaps, captions, strict=False)
        ],
    }


def _labels(pid: int, camid: int) -> str:
    return f"id {pid}, cam {camid + 1}"


def _figure(image: Image.Image | None, kind: str, lines: tuple[str, ...]) -> Figure:
    return Figure("" if image is None else image_source(image), kind, lines)


def _calibration(calibration: Mapping) -> dict:
    rows = tuple(
        (f"{row['fmr']:g}", f"{row['threshold']:.4f}", _percent(row["fnmr"]))
        for row in calibration.get("fnmr_at_fmr", ())
    )
    text = ""
    if calibration:
        text = (
            "Two images are accepted as the same identity up to a distance of "
            f"{calibration['threshold']:.4f}, at a false-match rate of "
            f"{calibration['false_match_rate']:g}."
        )
    head = ("false-match rate", "threshold", "false non-match rate")
    return {"calibration": Table(head, rows) if calibration else None, "calibration_text": text}


def _sequence(value: object) -> Sequence[object]:
    """Lists and tuples as they are, anything else as an empty sequence."""
    return value if isinstance(value, list | tuple) else ()


def _percent(value: float | None) -> str:
    return f"{100 * value:.2f}%" if isinstance(value, int | float) else ""
