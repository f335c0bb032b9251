r"""Show ranked retrieval results as an HTML page and as one image.

    python -m tools.visualize TEST.WEIGHT runs/quickstart/checkpoints/best.pt
    python -m tools.visualize weights=runs/quickstart/checkpoints/best.pt --queries best,worst \
        --count 5 --out ranked

Writes DIR/index.html, which contains its images, and DIR/ranked.png; with several test sets, one
folder per test set. Best and worst queries are chosen by average precision, random ones by `SEED`.
"""

import argparse
import re
from dataclasses import replace
from pathlib import Path

from ember_reid.data.build import build_splits
from ember_reid.data.images import open_image
from ember_reid.engine.build import (
    build_benchmarks,
    build_device,
    build_trained_model,
    read_test_config,
)
from ember_reid.engine.evaluator import Benchmark
from ember_reid.engine.files import replaced_file
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.engine.montage import draw_montage
from ember_reid.engine.ranked_lists import CHOICES, ListOptions, RankedQuery, ranked_lists
from ember_reid.engine.scores import describe_scores, retrieval_scores
from ember_reid.evaluate import QueryGallery
from ember_reid.tools.common.cli import Command, add_overrides, add_recipe, echo
from ember_reid.tools.visualize.page import write_page


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe(parser)
    parser.add_argument(
        "--queries", default="random", help=f"comma-separated list of {', '.join(CHOICES)}"
    )
    parser.add_argument(
        "--count", type=int, default=10, help="queries of each choice (default %(default)s)"
    )
    parser.add_argument(
        "--top", type=int, default=10, help="matches shown per query (default %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="output folder (default: `ranked` beside checkpoints/)",
    )
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    for path in visualize(options):
        echo(path)


def visualize(arguments: argparse.Namespace) -> list[Path]:
    """Embed the test sets and write their pages; return the files written."""
    choices = arguments.queries.split(",")
    for choice in choices:
        if choice not in CHOICES:
            raise ValueError(
                f"--queries is '{arguments.queries}', it must be a comma-separated list of "
                f"{', '.join(CHOICES)}"
            )
    for name in ("count", "top"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} is {getattr(arguments, name)}, it must be at least 1")
    cfg = read_test_config(arguments.config, arguments.overrides)
    device = build_device(cfg)
    tests = build_splits(cfg, train=False).tests
    model = build_trained_model(cfg, device)
    weight = Path(cfg.TEST.WEIGHT)
    out = (
        arguments.out
        or (weight.parent.parent if weight.parent.name == "checkpoints" else weight.parent)
        / "ranked"
    )
    written = []
    for name, benchmark in build_benchmarks(cfg, tests, model, device).items():
        # A dataset name must not point outside the folder.
        folder = out if len(tests) == 1 else out / re.sub(r"[^\w@-]+", "_", name)
        lists, facts = _rank(benchmark, choices, arguments, seed=cfg.SEED)
        folder.mkdir(parents=True, exist_ok=True)
        written += _write(
            folder,
            lists,
            benchmark,
            title=f"Ranked results on {name}",
            facts=[f"Network: {weight}", *facts],
        )
    return written


def _rank(
    benchmark: Benchmark, choices: list[str], arguments: argparse.Namespace, *, seed: int
) -> tuple[list[RankedQuery], list[str]]:
    """The ranked lists of one test set, and lines that describe it."""
    embedded, settings, num_query = benchmark.embed(), benchmark.settings, len(benchmark.query)
    scores = retrieval_scores(embedded, num_query, replace(settings, rerank=None))
    columns = (embedded.embeddings.cpu(), embedded.pids.cpu(), embedded.camids.cpu())
    sets = QueryGallery.split(*columns, num_query)
    options = ListOptions(
        count=arguments.count,
        top=arguments.top,
        metric=settings.metric,
        protocol=settings.protocol,
        seed=seed,
    )
    lists = [
        ranked
        for choice in choices
        for ranked in ranked_lists(sets, replace(options, queries=choice))
    ]
    left_out = "left out" if settings.protocol == "cross-camera" else "kept"
    facts = [
        f"All {scores['num_valid']} queries with a match: {', '.join(describe_scores(scores))}.",
        f"Shown: {', '.join(choices)} queries, {arguments.count} of each. The gallery has "
        f"{len(benchmark.gallery)} entries; those of the query's own identity and camera are "
        f"{left_out}.",
        "Blue: the query. Green: right. Red, dashed: wrong. The number is the distance, smaller is "
        "closer.",
    ]
    return lists, facts


def _write(
    folder: Path, lists: list[RankedQuery], benchmark: Benchmark, *, title: str, facts: list[str]
) -> list[Path]:
    def load_query(index: int):
        return open_image(benchmark.query[index].paths[0])

    def load_gallery(index: int):
        return open_image(benchmark.gallery[index].paths[0])

    page, montage = folder / "index.html", folder / "ranked.png"
    write_page(page, lists, load_query, load_gallery, title=title, facts=facts)
    with replaced_file(montage) as draft:
        draw_montage(lists, load_query, load_gallery).save(draft)
    return [page, montage]


main = Command("visualize", __doc__ or "", add_options, run).main
