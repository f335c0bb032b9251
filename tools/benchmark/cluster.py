"""Measure one clustering of synthetic embeddings against the re-ranking that it contains.

    python -m tools.benchmark cluster --shape market1501
    python -m tools.benchmark cluster --items 32621 --dim 2048 --identities 1041

Each identity is a random direction. The cosine distance between two of its items is about --spread.
The search for neighbors and their encoding are those of k-reciprocal re-ranking; distances and
clusters are what a clustering adds.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from ember_reid.evaluate import (
    ALGORITHMS,
    OUTLIER,
    ClusterSettings,
    cluster,
    jaccard,
    jaccard_distances,
)
from ember_reid.tools.common.cli import Command, check_at_least, echo

# Training images and identities.
SHAPES = {"market1501": (12_936, 751), "msmt17": (32_621, 1_041)}
# The parts of `jaccard_distances` that re-ranking has as well.
RERANKING = ("nearest_neighbors", "average_weights")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--shape", choices=SHAPES, help="sizes of a training set")
    parser.add_argument("--items", type=int, default=12_936, help="default: %(default)s")
    parser.add_argument("--identities", type=int, default=751, help="default: %(default)s")
    parser.add_argument(
        "--dim", type=int, default=2048, help="dimensions of an embedding (default: %(default)s)"
    )
    parser.add_argument("--spread", type=float, default=0.6, help="default: %(default)s")
    parser.add_argument("--radius", type=float, default=0.6, help="default: %(default)s")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="dbscan")


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    if options.shape:
        options.items, options.identities = SHAPES[options.shape]
    check_at_least(options, items=8, identities=1, dim=1)
    for name in ("spread", "radius"):
        if not 0 < getattr(options, name) < 1:
            raise ValueError(f"--{name} is {getattr(options, name)}, it must be between 0 and 1")
    embeddings = make_embeddings(options)
    seconds = dict.fromkeys(RERANKING, 0.0)
    start = time.perf_counter()
    with _timed(seconds):
        distances = jaccard_distances(embeddings, radius=options.radius)
    encoded = time.perf_counter() - start
    labels = cluster(distances, ClusterSettings(options.algorithm, options.radius))
    total, reranking = time.perf_counter() - start, sum(seconds.values())
    echo(
        f"{options.items:,} x {options.dim} float32, {options.identities} identities; "
        f"{torch.get_num_threads()} threads"
    )
    echo(
        f"neighbors {seconds['nearest_neighbors']:.1f} s, encoding "
        f"{seconds['average_weights']:.1f} s; distances {encoded - reranking:.1f} s "
        f"({distances.nnz:,} pairs), {options.algorithm} {total - encoded:.1f} s"
    )
    echo(
        f"clustering {total:.1f} s, {total / reranking:.2f} x the re-ranking that it contains "
        f"({reranking:.1f} s); {labels.max() + 1} clusters, {(labels == OUTLIER).sum():,} outliers"
    )
    peak, own = _peak_gib(), embeddings.nbytes / 2**30
    echo(f"peak memory of the process {peak:.2f} GiB, of which {own:.2f} are the embeddings")


def make_embeddings(options: argparse.Namespace) -> torch.Tensor:
    """L2-normalized embeddings [N, D]."""
    generator = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=generator)
    centers = torch.nn.functional.normalize(normal(options.identities, options.dim))
    owners = torch.randint(options.identities, (options.items,), generator=generator)
    # Noise of this size divides the cosine of two items of one identity by 1 / (1 - spread).
    scale = (options.spread / (1 - options.spread) / options.dim) ** 0.5
    embeddings = normal(options.items, options.dim).mul_(scale)
    for block, owner in zip(embeddings.split(1024), owners.split(1024), strict=True):
        block.add_(centers[owner])
    return torch.nn.functional.normalize(embeddings, out=embeddings)


@contextmanager
def _timed(seconds: dict[str, float]) -> Iterator[None]:
    """Add the seconds of the named functions of `jaccard`."""

    def timed(name: str, function: Callable) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **options)
            seconds[name] += time.perf_counter() - start
            return result

        return call

    with ExitStack() as stack:
        for name in seconds:
            stack.enter_context(patch.object(jaccard, name, timed(name, getattr(jaccard, name))))
        yield


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


main = Command("benchmark cluster", __doc__ or "", add_options, run).main
