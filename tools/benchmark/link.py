"""Measure how tools.link groups synthetic tracklets: time, memory and scores.

    python -m tools.benchmark link --tracklets 2000 20000

Embeddings are distributed around random identities, see --spread and --rank. The tracklets of an
identity follow each other in time, in random cameras, so that tracklets of different identities
overlap. Seconds are those of the process on the clock, and in parentheses of its CPU time. Memory
is the peak beyond the embeddings.
"""

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from ember_reid.evaluate import pair_scores
from ember_reid.evaluate.agglomeration import average_linkage, find_near_pairs, silhouettes
from ember_reid.tools.benchmark.machine import peak_memory, processor_name
from ember_reid.tools.benchmark.search import make_embeddings
from ember_reid.tools.common.cli import Command, check_at_least, echo
from ember_reid.tools.link.constraints import Constraints, TravelTimes
from ember_reid.tools.link.tracklets import Tracklet

# Seconds of a tracklet, and from the start of one to that of the next of the same identity.
DURATION, PERIOD = 20.0, 60.0
Result = TypeVar("Result")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--tracklets", type=int, nargs="+", default=[2_000, 20_000], help="default: %(default)s"
    )
    parser.add_argument(
        "--per-identity", type=int, default=10, help="tracklets (default: %(default)s)"
    )
    parser.add_argument("--cameras", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--dim", type=int, default=512, help="default: %(default)s")
    parser.add_argument(
        "--spread",
        type=float,
        default=0.2,
        help="cosine distance of two tracklets of an identity (default: %(default)s)",
    )
    parser.add_argument(
        "--rank",
        type=int,
        default=16,
        help="dimensions that the identities fill; fewer: more near pairs (default: %(default)s)",
    )
    parser.add_argument("--threshold", type=float, default=0.3, help="default: %(default)s")


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    check_at_least(options, per_identity=1, cameras=1, dim=1, rank=1)
    if min(options.tracklets) < 1:
        raise ValueError(f"--tracklets is {min(options.tracklets)}, it must be at least 1")
    if options.rank > options.dim:
        raise ValueError(f"--rank is {options.rank}, it must be at most --dim, {options.dim}")
    if not 0 < options.spread < 1:
        raise ValueError(f"--spread is {options.spread}, it must be between 0 and 1")
    if not 0 < options.threshold <= 1:
        raise ValueError(f"--threshold is {options.threshold}, it must be in 0..1")
    echo(f"{processor_name()}, {torch.get_num_threads()} threads")
    for count in options.tracklets:
        for line in _measure(count, options):
            echo(line)


def _measure(count: int, options: argparse.Namespace) -> list[str]:
    """Link `count` tracklets; returns lines for the user."""
    num_identities = -(-count // options.per_identity)
    embeddings = make_embeddings(
        count,
        dim=options.dim,
        identities=num_identities,
        spread=options.spread,
        rank=options.rank,
    ).numpy()
    conflict = Constraints(
        make_tracklets(count, num_identities, options.cameras), TravelTimes({})
    ).conflict
    limits = {"threshold": options.threshold, "conflict": conflict}

    def link() -> tuple[np.ndarray, int, list[str]]:
        pairs, found = _time(lambda: find_near_pairs(embeddings, 2 * options.threshold))
        labels, linked = _time(lambda: average_linkage(count, pairs, **limits))
        _, rated = _time(lambda: silhouettes(labels, pairs, **limits))
        return labels, len(pairs), [found, linked, rated]

    (labels, num_pairs, seconds), memory = peak_memory(link, torch.device("cpu"))
    scores = pair_scores(np.arange(count) % num_identities, labels)
    parts = zip(("near pairs", "linkage", "confidence"), seconds, strict=True)
    return [
        f"{count:,} tracklets of {num_identities:,} identities, {num_pairs:,} near pairs",
        "  "
        + ", ".join(f"{name} {value}" for name, value in parts)
        + f"; memory {memory / 2**20:.0f} MiB",
        f"  {labels.max() + 1:,} identities found; pairs of tracklets: precision "
        f"{scores.precision:.1%}, recall {scores.recall:.1%}, F1 {scores.f1:.1%}",
    ]


def make_tracklets(count: int, num_identities: int, num_cameras: int) -> list[Tracklet]:
    """Tracklets whose identity is their number modulo `num_identities`."""
    rng = np.random.default_rng(0)
    cameras = rng.integers(0, num_cameras, count)
    starts = np.arange(count) // num_identities * PERIOD + rng.uniform(0, PERIOD - DURATION, count)
    return [
        Tracklet(f"cam{camera}", str(number), (number,), start, start + DURATION)
        for number, (camera, start) in enumerate(zip(cameras, starts.tolist(), strict=True))
    ]


def _time(work: Callable[[], Result]) -> tuple[Result, str]:
    """The result of a call, and its seconds as text."""
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return result, f"{seconds:.1f} s ({cpu:.1f} s)"


main = Command("benchmark link", __doc__ or "", add_options, run).main
