"""Search a file of embeddings (tools.extract) for the identities of query images.

    python -m tools.search features.npz datasets/quickstart/market1501/query --top 5 --rerank
    python -m tools.search features.npz query.jpg photos/1.jpg
    python -m tools.search features.npz cows.npz --threshold 0.35 --faiss --out found

Writes DIR/index.html, which contains its images, and DIR/search.json. A query is "unknown" if its
nearest entry is farther away than the threshold. The default threshold is that of tools.calibrate
beside the weights. Queries are images, folders, CSV files, or one .npz file of tools.extract that
was written with the same network.
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from ember_reid.engine.deploy.metadata import ExportMetadata
from ember_reid.engine.files import replace_text
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.tools.common.cli import Command, echo
from ember_reid.tools.common.feature_file import Features, load_features
from ember_reid.tools.common.inputs import read_images
from ember_reid.tools.common.model_arguments import add_threshold_argument, add_trust_argument
from ember_reid.tools.common.stored_network import (
    check_same_network,
    choose_threshold,
    reopen_network,
)
from ember_reid.tools.search.knn import (
    Nearest,
    check_faiss,
    nearest,
    nearest_faiss,
    open_faiss,
    reach_recall,
    rerank,
)
from ember_reid.tools.search.page import write_page
from torch import Tensor


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "features", type=Path, metavar="FEATURES.npz", help="gallery, written by tools.extract"
    )
    parser.add_argument(
        "queries", nargs="+", metavar="QUERY", help="images, folders, CSV files, or one .npz file"
    )
    parser.add_argument(
        "--top", type=int, default=10, help="matches per query (default %(default)s)"
    )
    add_threshold_argument(parser)
    parser.add_argument(
        "--rerank", type=int, nargs="?", const=100, default=0, metavar="K",
        help="re-rank the K nearest by k-reciprocal encoding (default K: 100)",
    )  # fmt: skip
    parser.add_argument(
        "--faiss", action="store_true", help="approximate search; its recall is printed"
    )
    parser.add_argument(
        "--recall",
        type=float,
        default=0.99,
        help="share of the exact neighbors that faiss must find; lower is faster "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="weight file of the network, if it was moved"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("search"), metavar="DIR", help="default: %(default)s"
    )
    add_trust_argument(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    # Re-ranking would log its memory plan for every query.
    logging.getLogger("ember").setLevel(logging.WARNING)
    for line in search(options):
        echo(line)


def search(arguments: argparse.Namespace) -> list[str]:
    """Search, write the page and the JSON file; return lines for the user."""
    if arguments.top < 1:
        raise ValueError(f"--top is {arguments.top}, it must be at least 1")
    if arguments.rerank < 0:
        raise ValueError(f"--rerank is {arguments.rerank}, it must be at least 1")
    if not 0 < arguments.recall <= 1:
        raise ValueError(
            f"--recall is {arguments.recall:g}, it is a fraction in 0..1: 0.99 finds 99 of 100 "
            "neighbors"
        )
    if arguments.faiss:
        check_faiss()
    features, metadata = load_features(arguments.features)
    if not len(features.paths):
        raise ValueError(f"{arguments.features} contains no embeddings")
    threshold = choose_threshold(arguments.threshold, features.network, arguments.weights)
    paths, query = embed_queries(arguments, features, metadata)
    gallery = torch.from_numpy(features.embeddings)
    lines = []
    k = max(arguments.top, arguments.rerank)
    if arguments.faiss:
        index = open_faiss(features.embeddings, arguments.features)
        reached = reach_recall(index, query, gallery, min(k, len(gallery)), wanted=arguments.recall)
        lines.append(
            f"faiss finds {reached.recall:.2%} of the exact {min(k, len(gallery))} nearest "
            f"({reached.num_queries} queries) in {reached.num_probed} of {reached.num_cells} "
            f"cells; {1000 * reached.faiss_seconds:.2f} ms a query, exact search "
            f"{1000 * reached.exact_seconds:.2f} ms"
        )
        found = nearest_faiss(index, query, k)
    else:
        found = nearest(query, gallery, k)
    closest = found.distances[:, 0].tolist()
    if arguments.rerank:
        found = _rerank(query, gallery, found)
    queries = [
        _describe_query(
            path, features, found, row, top=arguments.top, closest=closest[row], threshold=threshold
        )
        for row, path in enumerate(paths)
    ]
    lines += [f"{one['path']}: {one['decision']}" for one in queries]
    return lines + _write(
        arguments, queries, features, metadata, threshold, notes=lines[: int(arguments.faiss)]
    )


def embed_queries(
    arguments: argparse.Namespace, features: Features, metadata: ExportMetadata
) -> tuple[list[str], Tensor]:
    """Paths and embeddings [Q, D] of the queries, from the network that wrote the features."""
    files = [query for query in arguments.queries if query.endswith(".npz")]
    if files:
        if len(arguments.queries) > 1:
            raise ValueError(
                f"an .npz file must be the only query, but {files[0]} is one of several"
            )
        queries, other = load_features(Path(files[0]))
        check_same_network(metadata, other, arguments.features, files[0])
        return queries.paths.tolist(), torch.from_numpy(queries.embeddings)
    paths = [image.path for image in read_images(arguments.queries)]
    embedder = reopen_network(
        features.network, arguments.features, weights=arguments.weights, trust=arguments.trust
    )
    return [str(path) for path in paths], embedder.embed(paths)


def _rerank(query: Tensor, gallery: Tensor, found: Nearest) -> Nearest:
    # faiss may find fewer than k.
    if (found.indices < 0).any():
        raise ValueError(
            "faiss found too few neighbors to re-rank: use a smaller K, or omit --faiss"
        )
    return rerank(query, gallery, found)


def _describe_query(
    path: str,
    features: Features,
    found: Nearest,
    row: int,
    *,
    top: int,
    closest: float,
    threshold: float | None,
) -> dict:
    """A query and its matches as in search.json; "same" is None without a threshold."""
    pairs = zip(found.distances[row].tolist(), found.indices[row].tolist(), strict=True)
    matches = [
        {
            "rank": rank,
            "path": str(features.paths[index]),
            "pid": str(features.pids[index]),
            "camid": str(features.camids[index]),
            "distance": distance,
            "same": None if threshold is None else distance <= threshold,
        }
        for rank, (distance, index) in enumerate(((d, i) for d, i in pairs if i >= 0), start=1)
    ]
    known = None if threshold is None else closest <= threshold
    if known is False:
        decision = f"unknown (the nearest is at {closest:.3f})"
    else:
        # After re-ranking, the first entry may be beyond the threshold.
        first = next(match for match in matches if match["same"] is not False)
        decision = f"{first['pid'] or first['path']} at {first['distance']:.3f}"
    return {
        "path": path,
        "known": known,
        "decision": decision,
        "closest": closest,
        "matches": matches[:top],
    }


def _write(
    arguments: argparse.Namespace,
    queries: list[dict],
    features: Features,
    metadata: ExportMetadata,
    threshold: float | None,
    *,
    notes: list[str],
) -> list[str]:
    arguments.out.mkdir(parents=True, exist_ok=True)
    page, data = arguments.out / "index.html", arguments.out / "search.json"
    rule = (
        "Without a threshold, no query is unknown. tools.calibrate finds a threshold."
        if threshold is None
        else f"Same: a cosine distance of at most {threshold:.4f}; unknown: no entry within that "
        "distance."
    )
    facts = [
        f"{len(queries)} queries in {len(features.paths)} images of {arguments.features}, network "
        f"{metadata.fingerprint}.",
        rule,
        *([f"The {arguments.rerank} nearest are re-ranked."] if arguments.rerank else []),
        *notes,
    ]
    content = {
        "features": str(arguments.features),
        "fingerprint": metadata.fingerprint,
        "threshold": threshold,
        "reranked": arguments.rerank,
        "faiss": arguments.faiss,
        "queries": queries,
    }
    replace_text(data, json.dumps(content, indent=2) + "\n")
    write_page(page, queries, facts=facts)
    return [rule, str(page), str(data)]


main = Command("search", __doc__ or "", add_options, run).main
