"""Measure the search in synthetic embeddings: exact, and with faiss at a given recall.

    python -m tools.benchmark search --entries 100000 --dim 512
    python -m tools.benchmark search --entries 1000000 --dim 512 --faiss

Each identity is a random direction. Its entries are distributed around it; the cosine distance
between two entries of one identity is about --spread. With --identities 0 all entries are
unrelated, which is the hardest case for faiss but does not occur in practice. Memory is the peak of
the process so far.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from ember_reid.data.images import GIB, free_memory
from ember_reid.tools.common.cli import Command, echo
from ember_reid.tools.search.knn import (
    build_faiss,
    check_faiss,
    nearest,
    nearest_faiss,
    reach_recall,
)
from torch import Tensor


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--entries", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument(
        "--dim", type=int, default=512, help="dimensions of an embedding (default: %(default)s)"
    )
    parser.add_argument("--queries", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--top", type=int, default=10, help="neighbors (default: %(default)s)")
    parser.add_argument(
        "--identities", type=int, default=50_000, help="0: unrelated entries (default: %(default)s)"
    )
    parser.add_argument("--spread", type=float, default=0.3, help="default: %(default)s")
    parser.add_argument(
        "--faiss", action="store_true", help="also build and search an inverted-file index"
    )
    parser.add_argument(
        "--recall",
        type=float,
        default=0.99,
        help="recall that faiss must reach (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    for name, least in (("entries", 1), ("dim", 1), ("queries", 1), ("top", 1), ("identities", 0)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} is {getattr(options, name)}, it must be at least {least}")
    if not 0 < options.spread < 1:
        raise ValueError(f"--spread is {options.spread}, it must be between 0 and 1")
    needed = 3 * 4 * options.dim * (options.entries + options.queries + options.identities)
    if needed > free_memory():
        raise ValueError(
            f"--entries {options.entries} and --dim {options.dim} need about {needed / GIB:.1f} "
            f"GiB, {free_memory() / GIB:.1f} GiB are free"
        )
    if options.faiss:
        check_faiss()
    embeddings = make_embeddings(
        options.entries + options.queries,
        dim=options.dim,
        identities=options.identities,
        spread=options.spread,
    )
    gallery, query = embeddings[options.queries :], embeddings[: options.queries]
    echo(
        f"{options.entries:,} x {options.dim} float32, {gallery.nbytes / 2**30:.2f} GiB, "
        f"{options.identities or 'no'} identities; {torch.get_num_threads()} threads; {_peak()} "
        "before the search"
    )
    for count in sorted({1, len(query)}):
        seconds = _time(partial(nearest, query[:count], gallery, options.top))
        echo(
            f"exact, {count} queries at once: {seconds:.3f} s, {1000 * seconds / count:.1f} ms a "
            f"query; {_peak()}"
        )
    if options.faiss:
        start = time.perf_counter()
        index = build_faiss(gallery.numpy())
        echo(f"faiss, built in {time.perf_counter() - start:.0f} s, {index.nlist} cells; {_peak()}")
        reached = reach_recall(index, query, gallery, options.top, wanted=options.recall)
        echo(
            f"faiss, {reached.num_probed} of {reached.num_cells} cells: recall at {options.top} "
            f"{reached.recall:.2%}, "
            f"{1000 * reached.faiss_seconds:.2f} ms a query, {reached.num_queries} at once, "
            f"{1000 * _time(lambda: nearest_faiss(index, query[:1], options.top)):.1f} ms alone"
        )


def make_embeddings(
    count: int, *, dim: int, identities: int, spread: float, rank: int = 0
) -> Tensor:
    """Embeddings [count, dim] of unit length; number n is of the identity n modulo `identities`.

    Args:
        identities: 0: unrelated embeddings.
        spread: mean cosine distance between two embeddings of an identity.
        rank: dimensions of the space that the identities are in; 0: all. The fewer, the nearer are
            different identities to each other.
    """
    rng = torch.Generator().manual_seed(0)
    embeddings = torch.randn(count, dim, generator=rng)
    if identities:
        # Noise of length s around centers of length c: two entries have the cosine
        # c^2 / (c^2 + s^2) = 1 - spread.
        centers = torch.nn.functional.normalize(torch.randn(identities, rank or dim, generator=rng))
        embeddings *= (spread / (1 - spread) / dim) ** 0.5
        for first in range(0, count, identities):
            part = embeddings[first : first + identities, : centers.shape[1]]
            part += centers[: len(part)]
    embeddings /= embeddings.norm(dim=1, keepdim=True)
    return embeddings


def _time(work: Callable[[], object]) -> float:
    """Seconds of the second call."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _peak() -> str:
    """The peak memory of this process, as text."""
    # macOS reports bytes, Linux KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"


main = Command("benchmark search", __doc__ or "", add_options, run).main
