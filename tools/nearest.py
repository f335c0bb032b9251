"""The nearest embeddings: exactly, in tiles, or through faiss with the recall that this costs.

Letters: Q queries, N gallery entries, D dimensions, k neighbours. All embeddings have length 1.
"""

import importlib.util
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluate import rerank_distances

TILE = 65536  # gallery entries that are compared at a time
PROBED = 32  # cells that faiss looks into


class Nearest(NamedTuple):
    """For each query its nearest entries, near ones first: cosine distances and positions [Q, k]."""

    distances: Tensor
    indices: Tensor


@torch.inference_mode()
def nearest(query: Tensor, gallery: Tensor, k: int, *, tile: int = TILE) -> Nearest:
    """The exact k nearest of [N, D] for each of [Q, D]; k is at most N. At most [Q, tile + k] distances are in memory."""
    k = min(k, len(gallery))
    distances = query.new_empty(len(query), 0)
    indices = torch.empty(len(query), 0, dtype=torch.int64)
    for first in range(0, len(gallery), tile):
        part = 1 - query @ gallery[first : first + tile].T  # [Q, tile]
        values, where = part.topk(min(k, part.shape[1]), dim=1, largest=False)
        distances = torch.cat([distances, values], dim=1)
        indices = torch.cat([indices, where + first], dim=1)
        by_index = indices.argsort(dim=1)  # so that the stable sort below gives ties to the lower position
        distances, indices = distances.gather(1, by_index), indices.gather(1, by_index)
        order = distances.argsort(dim=1, stable=True)[:, :k]
        distances, indices = distances.gather(1, order), indices.gather(1, order)
    return Nearest(distances.clamp(min=0), indices)


def rerank(query: Tensor, gallery: Tensor, found: Nearest) -> Nearest:
    """The same entries in the order of k-reciprocal re-ranking among each query's own k; distances stay cosine ones."""
    orders = []
    for row, indices in zip(query, found.indices, strict=True):
        distances = rerank_distances(row[None], gallery[indices])[0]  # [k]
        orders.append(distances.argsort(stable=True))
    order = torch.stack(orders)
    return Nearest(found.distances.gather(1, order), found.indices.gather(1, order))


def check_faiss() -> None:
    """Raises ValueError with the command that installs faiss where it is missing."""
    if importlib.util.find_spec("faiss") is None:
        raise ValueError("--faiss needs faiss, which is not installed: python -m pip install faiss-cpu")


def open_faiss(gallery: np.ndarray, path: Path, *, newer_than: Path):
    """An inverted-file index of [N, D] embeddings: the one in `path` where it is up to date, else built and kept there."""
    import faiss

    count, dim = gallery.shape
    if path.is_file() and path.stat().st_mtime >= newer_than.stat().st_mtime:
        index = faiss.read_index(str(path))
        if (index.ntotal, index.d) == (count, dim):
            return index
    cells = max(1, min(int(4 * count**0.5), count // 39))  # faiss wants 39 entries a cell to learn cells from
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFFlat(quantizer, dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.train(np.random.default_rng(0).permutation(gallery)[: 64 * cells])
    index.add(gallery)
    faiss.write_index(index, str(path))
    return index


def nearest_faiss(index, query: Tensor, k: int) -> Nearest:
    """The k nearest that faiss finds; what it does not find is at distance 2, position -1."""
    index.nprobe = min(PROBED, index.nlist)
    similarities, indices = index.search(np.ascontiguousarray(query.numpy()), min(k, index.ntotal))
    missing = indices < 0
    distances = np.where(missing, 2.0, 1 - similarities).clip(min=0).astype(np.float32)
    return Nearest(torch.from_numpy(distances), torch.from_numpy(indices.astype(np.int64)))


class Recall(NamedTuple):
    """What faiss finds of the exact k nearest, and the seconds that a query takes both ways."""

    recall: float
    num_queries: int
    exact_seconds: float
    faiss_seconds: float


def measure_recall(index, query: Tensor, gallery: Tensor, k: int, *, num_samples: int = 200) -> Recall:
    """Recall at k over the queries and, so that it is more than an anecdote, `num_samples` entries of the gallery."""
    chosen = np.random.default_rng(0).permutation(len(gallery))[:num_samples]
    asked = torch.cat([query, gallery[torch.from_numpy(chosen)]])
    start = time.perf_counter()
    exact = nearest(asked, gallery, k)
    middle = time.perf_counter()
    found = nearest_faiss(index, asked, k)
    end = time.perf_counter()
    hits = (exact.indices[:, :, None] == found.indices[:, None, :]).any(dim=2)
    seconds = (middle - start) / len(asked), (end - middle) / len(asked)
    return Recall(float(hits.float().mean()), len(asked), *seconds)
