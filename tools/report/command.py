"""Write an HTML page about a training run, or about several side by side.

    python -m tools.report runs/quickstart
    python -m tools.report runs/quickstart runs/other --heatmaps --out compare.html
    python -m tools.report runs/quickstart --plain
    python -m tools.report runs/quickstart DATASETS.ROOT datasets

The page shows recipe, curves, scores and ranked lists. It contains its images and needs no other
files. By default it is written to report.html in the folder of the first run. --plain uses only the
files of the run, without network and data. KEY VALUE pairs change the configuration, for example
the location of the data. The page states which parts are missing, and why.
"""

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from ember_reid.config import Config
from ember_reid.data.build import build_normalization, build_splits
from ember_reid.data.images import load_image, open_image
from ember_reid.engine.build import (
    build_benchmarks,
    build_device,
    build_trained_model,
    read_test_config,
)
from ember_reid.engine.evaluator import Benchmark
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.tools.common.cli import Command, echo
from ember_reid.tools.common.inputs import split_overrides
from ember_reid.tools.heatmaps.command import grad_cam, overlay, pair_cosine
from ember_reid.tools.report.page import RunReport, write_page
from ember_reid.tools.report.retrieval_analysis import Labeled, RetrievalAnalysis, analyze_retrieval
from ember_reid.tools.report.run_reader import Run, read_run
from PIL import Image

logger = logging.getLogger("ember.report")


@dataclass(frozen=True)
class Settings:
    """Options of the analysis: queries of each kind, matches per query, heatmaps, overrides."""

    count: int = 6
    top: int = 10
    heatmaps: bool = False
    overrides: tuple[str, ...] = ()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="RUN_DIR [KEY VALUE]",
        help="folders of runs, then configuration keys",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: report.html in the first run's folder"
    )
    parser.add_argument(
        "--plain", action="store_true", help="use only the files of the run, not the network"
    )
    parser.add_argument(
        "--heatmaps", action="store_true", help="heatmaps of each query and its first match (slow)"
    )
    parser.add_argument(
        "--count", type=int, default=6, help="queries of each kind (default %(default)s)"
    )
    parser.add_argument(
        "--top", type=int, default=10, help="matches shown per query (default %(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    echo(report(options))


def report(arguments: argparse.Namespace) -> Path:
    """Read the runs, analyze their test sets, and write the page; return its path."""
    for name in ("count", "top"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} is {getattr(arguments, name)}, it must be at least 1")
    overrides, words = split_overrides(arguments.words)
    folders = [Path(word) for word in words]
    if not folders:
        raise ValueError("no run is given, for example: python -m tools.report runs/x")
    settings = Settings(arguments.count, arguments.top, arguments.heatmaps, tuple(overrides))
    runs = [read_run(folder) for folder in folders]
    out = arguments.out or folders[0] / "report.html"
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: the folder {out.parent} does not exist")
    reports = [RunReport(run) if arguments.plain else analyze_run(run, settings) for run in runs]
    write_page(out, reports)
    return out


def analyze_run(run: Run, settings: Settings) -> RunReport:
    """Analyze the network of a run; the page states why if that is not possible."""
    if run.weights is None:
        return RunReport(
            run,
            problem="There is no checkpoints/best.pt or last.pt, so there are no distances and no "
            "images.",
        )
    try:
        cfg = read_test_config(None, ["TEST.WEIGHT", str(run.weights), *settings.overrides])
        device = build_device(cfg)
        tests = build_splits(cfg, train=False).tests
        model = build_trained_model(cfg, device)
        benchmarks = build_benchmarks(cfg, tests, model, device)
        analyses, images, heats = [], {}, {}
        for name, benchmark in benchmarks.items():
            analysis = analyze_benchmark(name, benchmark, settings)
            analyses.append(analysis)
            images[name] = load_images(analysis, benchmark)
            if settings.heatmaps:
                heats[name] = draw_heatmaps(analysis, benchmark, cfg, model, device)
    except (ValueError, OSError) as error:
        problem = f"Distances and images are missing: {' '.join(str(error).split())}"
        logger.warning("%s: %s", run.name, problem)
        return RunReport(run, problem=problem)
    return RunReport(run, tuple(analyses), images, heats)


def analyze_benchmark(name: str, benchmark: Benchmark, settings: Settings) -> RetrievalAnalysis:
    """Embed a test set and analyze it."""
    embedded, num_query = benchmark.embed(), len(benchmark.query)
    features, pids, camids = (
        embedded.embeddings.cpu(),
        embedded.pids.cpu().numpy(),
        embedded.camids.cpu().numpy(),
    )
    return analyze_retrieval(
        Labeled(features[:num_query], pids[:num_query], camids[:num_query]),
        Labeled(features[num_query:], pids[num_query:], camids[num_query:]),
        name=name,
        metric=benchmark.settings.metric,
        protocol=benchmark.settings.protocol,
        count=settings.count,
        top=settings.top,
    )


def load_images(
    analysis: RetrievalAnalysis, benchmark: Benchmark
) -> dict[tuple[str, int], tuple[str, Image.Image]]:
    """Map ("query" | "gallery", position) to (file name, thumbnail) for all images shown."""
    wanted = {("query", ranked.index) for ranked in analysis.lists}
    wanted |= {("gallery", entry.index) for ranked in analysis.lists for entry in ranked.entries}
    images = {}
    for side, index in sorted(wanted):
        path = (benchmark.query if side == "query" else benchmark.gallery)[index].paths[0]
        images[side, index] = (path.name, _shrunk(path))
    return images


def draw_heatmaps(
    analysis: RetrievalAnalysis, benchmark: Benchmark, cfg: Config, model, device
) -> dict[int, list[Image.Image]]:
    """Heatmaps that explain the cosine of each query and its first match (tools.heatmaps)."""
    normalize, heats = build_normalization(cfg), {}
    model.requires_grad_(False)
    for ranked in analysis.lists:
        paths = (
            benchmark.query[ranked.index].paths[0],
            benchmark.gallery[ranked.entries[0].index].paths[0],
        )
        images = [
            load_image(path, size=tuple(cfg.INPUT.SIZE_TEST), interpolation=cfg.INPUT.INTERPOLATION)
            for path in paths
        ]
        heat = grad_cam(model, normalize(torch.stack(images).to(device)), pair_cosine)
        heats[ranked.index] = [overlay(_shrunk(path), heat[k]) for k, path in enumerate(paths)]
    return heats


def _shrunk(path: Path) -> Image.Image:
    image = open_image(path).convert("RGB")
    image.thumbnail((128, 192))
    return image


main = Command("report", __doc__ or "", add_options, run).main
