"""Nearest neighbors: exact, in tiles, or approximate with faiss at a measured recall.

Letters: Q queries, N gallery entries, D dimensions, k neighbors. All embeddings have length 1.
"""

import hashlib
import importlib.util
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ember_reid.evaluate import rerank_distances
from torch import Tensor

# Gallery entries per tile.
TILE = 65536
# Initial number of cells that faiss searches; it is doubled until the recall is reached.
FIRST_PROBED = 8


class Nearest(NamedTuple):
    """The nearest entries of each query, sorted: cosine distances and positions [Q, k]."""

    distances: Tensor
    indices: Tensor


@torch.inference_mode()
def nearest(query: Tensor, gallery: Tensor, k: int, *, tile: int = TILE) -> Nearest:
    """The exact k nearest entries of a gallery [N, D] for each query [Q, D].

    At most [Q, tile + k] distances are in memory. Ties keep the order of the gallery.
    """
    k = min(k, len(gallery))
    distances = query.new_empty(len(query), 0)
    indices = torch.empty(len(query), 0, dtype=torch.int64)
    for first in range(0, len(gallery), tile):
        # [Q, tile]
        part = 1 - query @ gallery[first : first + tile].T
        values, where = part.topk(min(k, part.shape[1]), dim=1, largest=False)
        distances = torch.cat([distances, values], dim=1)
        indices = torch.cat([indices, where + first], dim=1)
        # The stable sort below then puts the lower index first if distances are equal.
        by_index = indices.argsort(dim=1)
        distances, indices = distances.gather(1, by_index), indices.gather(1, by_index)
        order = distances.argsort(dim=1, stable=True)[:, :k]
        distances, indices = distances.gather(1, order), indices.gather(1, order)
    return Nearest(distances.clamp(min=0), indices)


def rerank(query: Tensor, gallery: Tensor, found: Nearest) -> Nearest:
    """Sort the entries of each query by k-reciprocal re-ranking; cosine distances are kept."""
    orders = []
    for row, indices in zip(query, found.indices, strict=True):
        # [k]
        distances = rerank_distances(row[None], gallery[indices])[0]
        orders.append(distances.argsort(stable=True))
    order = torch.stack(orders)
    return Nearest(found.distances.gather(1, order), found.indices.gather(1, order))


def check_faiss() -> None:
    """Raise ValueError if faiss is not installed, with the command that installs it."""
    if importlib.util.find_spec("faiss") is None:
        raise ValueError(
            "--faiss needs faiss, which is not installed: python -m pip install faiss-cpu"
        )


def open_faiss(gallery: np.ndarray, path: Path):
    """Read or build an inverted-file index of embeddings [N, D].

    Args:
        gallery: the embeddings.
        path: prefix of the file name. A digest of the embeddings is appended, so that an index of
            other embeddings is never used.
    """
    import faiss

    digest = hashlib.sha256(np.ascontiguousarray(gallery).data).hexdigest()[:16]
    file = path.with_name(f"{path.name}.{digest}.faiss")
    if file.is_file():
        try:
            index = faiss.read_index(str(file))
        except RuntimeError:
            # The file is damaged, so the index is built again.
            index = None
        if index is not None and (index.ntotal, index.d) == gallery.shape:
            return index
    index = build_faiss(gallery)
    draft = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        faiss.write_index(index, str(draft))
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    return index


def build_faiss(gallery: np.ndarray):
    """Build an index of embeddings [N, D] with 4 sqrt(N) cells, trained on 64 entries per cell."""
    import faiss

    count, dim = gallery.shape
    # faiss needs 39 entries per cell for training.
    cells = max(1, min(int(4 * count**0.5), count // 39))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.train(gallery[np.random.default_rng(0).permutation(count)[: 64 * cells]])
    index.add(gallery)
    return index


def nearest_faiss(index, query: Tensor, k: int) -> Nearest:
    """The k nearest entries that faiss finds in index.nprobe cells.

    Missing entries have the distance 2 and the index -1.
    """
    similarities, indices = index.search(np.ascontiguousarray(query.numpy()), min(k, index.ntotal))
    missing = indices < 0
    distances = np.where(missing, 2.0, 1 - similarities).clip(min=0).astype(np.float32)
    return Nearest(torch.from_numpy(distances), torch.from_numpy(indices.astype(np.int64)))


@dataclass(frozen=True)
class Recall:
    """Share of the exact neighbors that faiss finds, cells searched, and seconds per query."""

    recall: float
    num_probed: int
    num_cells: int
    num_queries: int
    exact_seconds: float
    faiss_seconds: float


def reach_recall(
    index, query: Tensor, gallery: Tensor, k: int, *, wanted: float = 0.99, num_samples: int = 200
) -> Recall:
    """Double index.nprobe, the number of cells searched, from 8 until the recall is `wanted`.

    The recall of the k nearest is measured on the queries [Q, D] and on `num_samples` entries of
    the gallery [N, D]. An entry that finds itself does not count.
    """
    chosen = torch.from_numpy(np.random.default_rng(0).permutation(len(gallery))[:num_samples])
    probes = torch.cat([query, gallery[chosen]])
    itself = torch.cat([torch.full((len(query),), -1), chosen])
    start = time.perf_counter()
    # [Q + num_samples, k]
    exact = nearest(probes, gallery, k).indices
    exact_seconds = (time.perf_counter() - start) / len(probes)
    others = exact != itself[:, None]
    index.nprobe = min(FIRST_PROBED, index.nlist)
    while True:
        start = time.perf_counter()
        found = nearest_faiss(index, probes, k).indices
        seconds = (time.perf_counter() - start) / len(probes)
        hits = (exact[:, :, None] == found[:, None, :]).any(dim=2)[others]
        recall = float(hits.float().mean()) if len(hits) else 1.0
        if recall >= wanted or index.nprobe == index.nlist:
            return Recall(recall, index.nprobe, index.nlist, len(probes), exact_seconds, seconds)
        index.nprobe = min(2 * index.nprobe, index.nlist)
