"""Measure ranking, evaluation from features, and re-ranking on synthetic features.

    python -m tools.benchmark evaluate --shape market1501 --rerank

The features have the shape of a public test set. Every time is the median of --repeats runs. Ratios
are medians over consecutive runs; other load on the machine affects them less than the times. Peak
memory is what the process allocates beyond the features.
Letters: Q queries, G gallery entries, N = Q + G, D dimensions.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from ember_reid.evaluate import Rerank, evaluate_features, rank_metrics, ranking
from ember_reid.evaluate.fast.matmul_backends import (
    PRODUCTS,
    Product,
    prefer_integers,
    product_integers,
)
from ember_reid.evaluate.fast.tiles import (
    COLUMNS,
    ROWS_CPU,
    ROWS_GPU,
    choose_product,
    full_precision,
)
from ember_reid.tools.benchmark.machine import (
    format_seconds,
    memory_status,
    peak_memory,
    processor_name,
    synchronize,
)
from ember_reid.tools.common.cli import Command, echo

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """Counts of a benchmark's test set.

    Distractors are gallery images of identities that are not in the query set.
    """

    num_query: int
    num_gallery: int
    num_pids: int
    num_cams: int
    num_distractors: int = 0


SHAPES = {
    "market1501": Shape(3368, 15913, 750, 6, 2798),
    "veri776": Shape(1678, 11579, 200, 20),
    "msmt17": Shape(11659, 82161, 3060, 15),
    "veriwild": Shape(10000, 128517, 10000, 174),
    "tiny": Shape(60, 400, 20, 3, 40),
}


class TestSet(NamedTuple):
    """Synthetic features of unit length, with identities and cameras.

    Attributes:
        query, gallery: float32 [Q, D], [G, D].
        ids: query_pids, gallery_pids, query_camids, gallery_camids.
    """

    query: torch.Tensor
    gallery: torch.Tensor
    ids: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--shape", choices=list(SHAPES), default="market1501", help="default: %(default)s"
    )
    parser.add_argument(
        "--rerank", action="store_true", help="also measure k-reciprocal re-ranking"
    )
    parser.add_argument(
        "--dims", type=int, default=2048, help="dimensions of a feature (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="runs of each measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help="where the features are: cpu or cuda (default: %(default)s)"
    )
    parser.add_argument(
        "--memory-gib", type=float, help="budget given to the evaluation (default: none)"
    )
    parser.add_argument(
        "--gallery",
        type=int,
        help="number of gallery images (default: that of the shape); official counts vary",
    )
    parser.add_argument(
        "--alone",
        action="store_true",
        help="measure only the evaluation from features (with --rerank, the re-ranked one), "
        "without a warm-up and without the comparisons",
    )


def run(options: argparse.Namespace) -> None:
    """Measure and print one line per result."""
    for name in ("dims", "repeats", "gallery"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, found {getattr(options, name)}.")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device is {options.device}, and torch sees no GPU here: choose cpu.")
    shape = SHAPES[options.shape]
    shape = replace(shape, num_gallery=options.gallery or shape.num_gallery)
    data = create_test_set(shape, options.dims, torch.device(options.device))
    echo(describe_machine(options, shape))
    with torch.no_grad(), full_precision():
        if options.alone:
            report_alone(
                data, options.repeats, options.memory_gib, Rerank() if options.rerank else None
            )
            return
        report_products(data, options.repeats)
        report_evaluation(data, options.repeats, options.memory_gib)
        report_ranking(data, options.repeats)
        if options.rerank:
            report_reranking(data, options.repeats, options.memory_gib)


def create_test_set(
    shape: Shape, dims: int, device: torch.device, *, latent: int = 96, seed: int = 0
) -> TestSet:
    """Draw features around random identity centers, with camera shifts and heavy-tailed noise.

    The mAP is about 0.8.
    """
    generator = np.random.default_rng(seed)
    pids = [
        generator.integers(0, shape.num_pids, shape.num_query),
        generator.integers(0, shape.num_pids, shape.num_gallery),
    ]
    pids[1][: shape.num_distractors] = shape.num_pids + np.arange(shape.num_distractors)
    camids = [generator.integers(0, shape.num_cams, len(side)) for side in pids]
    centers = generator.normal(size=(shape.num_pids + shape.num_distractors, latent)).astype(
        np.float32
    )
    shifts = 0.5 * generator.normal(size=(shape.num_cams, latent)).astype(np.float32)
    basis = generator.normal(size=(latent, dims)).astype(np.float32)
    features = []
    for side, cameras in zip(pids, camids, strict=True):
        noise = generator.normal(size=(len(side), latent)) * generator.gamma(
            2.0, 0.5, size=(len(side), 1)
        )
        latents = centers[side] + shifts[cameras] + 0.85 * noise.astype(np.float32)
        features.append(torch.nn.functional.normalize(torch.from_numpy(latents @ basis)).to(device))
    query, gallery = features
    return TestSet(query, gallery, (pids[0], pids[1], camids[0], camids[1]))


def report_alone(
    data: TestSet, repeats: int, memory_gib: float | None, rerank: Rerank | None
) -> None:
    """Print time and memory of the evaluation alone, and the memory of the whole process."""

    def evaluation():
        return evaluate_features(
            data.query, data.gallery, *data.ids, rerank=rerank, memory_gib=memory_gib
        )

    for _ in range(repeats):
        start = time.perf_counter()
        scores, peak = peak_memory(evaluation, data.query.device)
        synchronize()
        seconds = np.array([time.perf_counter() - start])
        whole = f", {memory_status('VmHWM') / GIB:.3f} GiB in total" if not np.isnan(peak) else ""
        echo(
            f"{'re-ranked' if rerank else 'plain'} scores alone  {format_seconds(seconds)}, "
            f"{peak / GIB:.3f} GiB beyond "
            f"the features{whole}, mAP {scores.mAP:.4f}, Rank-1 {scores.cmc[0]:.4f}"
        )


def report_products(data: TestSet, repeats: int) -> None:
    """Print the speed of each library's matrix product on tiles of this shape, and with int8."""
    work = 2.0 * len(data.query) * len(data.gallery) * data.query.shape[1]
    chosen = choose_product(data.query.device, work)
    products = PRODUCTS if data.query.device.type == "cpu" else {"torch": chosen}
    runs = {
        f"by {name}": bare_product(data, product, share=0.25) for name, product in products.items()
    }
    if data.query.device.type == "cpu":
        codes = data._replace(
            query=(data.query * 127).to(torch.int8), gallery=(data.gallery * 127).to(torch.int8)
        )
        runs["of bytes"] = bare_product(codes, product_integers, share=0.25)
    used = {"by " + next(name for name in products if products[name] is chosen)}
    if prefer_integers(data.query.device, work):
        used.add("of bytes")
    for name, seconds in measure(runs, repeats).items():
        mark = " (used)" if name in used else ""
        echo(f"product {name:<12} {0.25 * work / np.median(seconds) / 1e9:9.0f} GFLOP/s{mark}")


def report_evaluation(data: TestSet, repeats: int, memory_gib: float | None) -> None:
    """Compare evaluation from features with the matrix product that it contains."""
    work = 2.0 * len(data.query) * len(data.gallery) * data.query.shape[1]

    def evaluation():
        return evaluate_features(data.query, data.gallery, *data.ids, memory_gib=memory_gib)

    scores, peak = peak_memory(evaluation, data.query.device)
    times = measure(
        {"ours": evaluation, "bare": bare_product(data, choose_product(data.query.device, work))},
        repeats,
    )
    echo(
        f"scores               mAP {scores.mAP:.4f}, Rank-1 {scores.cmc[0]:.4f}, "
        f"{scores.num_valid} valid queries"
    )
    echo(f"product alone        {format_seconds(times['bare'])}")
    echo(
        f"features to scores   {format_seconds(times['ours'])}, "
        f"{ratio(times['ours'], times['bare']):.2f}x the product "
        f"alone, {peak / GIB:.3f} GiB beyond the features"
    )


def report_ranking(data: TestSet, repeats: int, most_bytes: int = GIB) -> None:
    """Compare the ranking of given distances with numpy's argsort of the same rows.

    The number of queries is limited so that their distances take at most `most_bytes`.
    """
    num = min(len(data.query), max(1, most_bytes // (4 * len(data.gallery))))
    distances = (1 - data.query[:num] @ data.gallery.t()).cpu().numpy()
    query_pids, gallery_pids, query_camids, gallery_camids = data.ids
    ids = query_pids[:num], gallery_pids, query_camids[:num], gallery_camids
    # All rows take the same time, so an eighth is enough.
    sorted_rows = max(1, num // 8)
    runs: dict[str, Callable[[], object]] = {
        "argsort": lambda: np.argsort(distances[:sorted_rows], axis=1)
    }
    backends = ("cython", "python") if ranking.rank_cy is not None else ("python",)
    for backend in backends:
        runs[backend] = partial(rank_metrics, distances, *ids, backend=backend)
    times = measure(runs, repeats)
    times["argsort"] = times["argsort"] * num / sorted_rows
    echo(f"argsort of all rows  {format_seconds(times['argsort'])} for {num} queries")
    for backend in backends:
        faster = ratio(times["argsort"], times[backend])
        echo(
            f"rank_metrics {backend:<7} {format_seconds(times[backend])}, {faster:.1f}x faster "
            "than argsort alone"
        )


def report_reranking(data: TestSet, repeats: int, memory_gib: float | None) -> None:
    """Compare re-ranked evaluation from features with its float32 matrix products alone.

    These products cover half of all pairs, and all pairs of a query and a gallery entry.
    """
    num, dims = len(data.query) + len(data.gallery), data.query.shape[1]
    repeats = min(repeats, 3) if num > 50_000 else repeats
    work = float(num) ** 2 * dims + 2.0 * len(data.query) * len(data.gallery) * dims
    product = choose_product(data.query.device, work)
    bare_work = 2.0 * len(data.query) * len(data.gallery) * dims

    def evaluation():
        return evaluate_features(
            data.query, data.gallery, *data.ids, rerank=Rerank(), memory_gib=memory_gib
        )

    scores, peak = peak_memory(evaluation, data.query.device)
    times = measure({"bare": bare_product(data, product), "ours": evaluation}, repeats)
    times["bare"] = times["bare"] * work / bare_work
    echo(f"re-ranked scores     mAP {scores.mAP:.4f}, Rank-1 {scores.cmc[0]:.4f}")
    echo(
        f"products alone       {format_seconds(times['bare'])} "
        "(extrapolated from queries x gallery)"
    )
    echo(
        f"features to these    {format_seconds(times['ours'])}, "
        f"{ratio(times['ours'], times['bare']):.2f}x the "
        f"float32 products alone, {peak / GIB:.3f} GiB beyond the features"
    )


def bare_product(data: TestSet, product: Product, *, share: float = 1.0) -> Callable[[], None]:
    """Return a function that multiplies a share of the queries with the gallery, in tiles."""
    rows = ROWS_CPU if data.query.device.type == "cpu" else ROWS_GPU
    queries = data.query[: max(1, int(share * len(data.query)))]

    def multiply() -> None:
        for left in queries.split(rows):
            for right in data.gallery.split(COLUMNS):
                product(left, right)

    return multiply


def measure(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each function [repeats]; they run in turn, after one warm-up run each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, function in runs.items():
            synchronize()
            start = time.perf_counter()
            function()
            synchronize()
            if repeat > 0:
                times[name].append(time.perf_counter() - start)
    return {name: np.array(seconds) for name, seconds in times.items()}


def ratio(upper: np.ndarray, lower: np.ndarray) -> float:
    """Median of the ratios of consecutive runs."""
    return float(np.median(upper / lower))


def describe_machine(options: argparse.Namespace, shape: Shape) -> str:
    """The shape, the machine and its load; times under load are unreliable."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else processor_name()
    return (
        f"{options.shape}: {shape.num_query:,} x {shape.num_gallery:,} x {options.dims} float32 on "
        f"{device}, {torch.get_num_threads()} threads, load {load}; torch {torch.__version__}, "
        f"numpy {np.__version__}, Python {platform.python_version()}"
    )


main = Command("benchmark evaluate", __doc__ or "", add_options, run).main
