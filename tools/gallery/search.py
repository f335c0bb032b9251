"""Find the identities on images in a gallery.

    python -m tools.gallery query people.db photo.jpg photos/ --top 3 --json found.json

An image is "unknown" if its nearest identity is farther away than the threshold. The default
threshold is the one that tools.calibrate stored next to the weights.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from ember_reid.engine.files import replace_text
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.tools.common.cli import Command, check_at_least, echo
from ember_reid.tools.common.inputs import read_images
from ember_reid.tools.common.model_arguments import add_threshold_argument, add_trust_argument
from ember_reid.tools.common.stored_network import choose_threshold, reopen_network
from ember_reid.tools.extract.command import embed_images
from ember_reid.tools.gallery.snapshot import Answer, Snapshot, decide, query, rank_identities
from ember_reid.tools.gallery.store import Gallery
from ember_reid.tools.search.knn import check_faiss, nearest_faiss, open_faiss, reach_recall

# With faiss: neighbors per identity that is to be found.
NEIGHBORS_PER_IDENTITY = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("gallery", type=Path, metavar="FILE", help="the gallery")
    parser.add_argument("images", nargs="+", help="images, folders or csv lists")
    parser.add_argument("--top", type=int, default=5, help="identities (default: %(default)s)")
    add_threshold_argument(parser)
    parser.add_argument("--faiss", action="store_true", help="search an index; for large galleries")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all candidates")
    parser.add_argument("--batch", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--weights", metavar="FILE", help="the network, if its file was moved")
    add_trust_argument(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    check_at_least(options, top=1, batch=1)
    if options.faiss:
        check_faiss()
    images = read_images(options.images)
    with Gallery(options.gallery) as gallery:
        threshold = choose_threshold(options.threshold, gallery.network, options.weights)
        embedder = reopen_network(
            gallery.network, options.gallery, weights=options.weights, trust=options.trust
        )
        part = embed_images(images, embedder, options.batch)
        search = search_index if options.faiss else search_all
        answers = list(search(gallery, part["embeddings"], options.top, threshold))
    paths = [str(images[position].path) for position in part["positions"]]
    for path, answer in zip(paths, answers, strict=True):
        echo(f"{path}: {answer}")
    for position, reason in zip(part["broken"], part["reasons"], strict=True):
        echo(f"left out: {images[position].path}: {reason}")
    if options.json:
        content = [
            {"path": path, **asdict(answer)} for path, answer in zip(paths, answers, strict=True)
        ]
        replace_text(options.json, json.dumps(content, indent=2) + "\n")


def search_all(
    gallery: Gallery, embeddings: np.ndarray, top: int, threshold: float | None
) -> Iterator[Answer]:
    """Compare embeddings [Q, D] with all entries."""
    snapshot = gallery.snapshot()
    for embedding in embeddings:
        yield query(snapshot, embedding, top=top, threshold=threshold)


def search_index(
    gallery: Gallery, embeddings: np.ndarray, top: int, threshold: float | None
) -> Iterator[Answer]:
    """Search a faiss index, which is built from the gallery and stored next to it."""
    snapshot = gallery.snapshot()
    if not len(snapshot.owners):
        yield from search_all(gallery, embeddings, top, threshold)
        return
    index = open_faiss(snapshot.embeddings, gallery.path)
    if gallery.snapshot() is not snapshot:
        # Another process may have forgotten identities that are in the new index.
        gallery.remove_indexes()
    probes = torch.from_numpy(embeddings)
    k = min(NEIGHBORS_PER_IDENTITY * top, len(snapshot.owners))
    reach_recall(index, probes, torch.from_numpy(snapshot.embeddings), k)
    found = nearest_faiss(index, probes, k)
    for distances, entries in zip(found.distances.numpy(), found.indices.numpy(), strict=True):
        yield _rank_found(snapshot, entries, distances, top, threshold)


def _rank_found(
    snapshot: Snapshot,
    entries: np.ndarray,
    distances: np.ndarray,
    top: int,
    threshold: float | None,
) -> Answer:
    """Rank the identities of the entries that faiss found; missing ones have the index -1."""
    is_found = entries >= 0
    candidates = rank_identities(snapshot, entries[is_found], distances[is_found], top=top)
    return decide(candidates, threshold)


main = Command("gallery query", __doc__ or "", add_options, run).main
