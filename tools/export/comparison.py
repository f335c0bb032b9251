"""Compares an exported network with PyTorch: embeddings, scores, error rates, and time."""

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from ember_reid.data.batch import EmbeddingBatch
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.evaluator import Benchmark
from ember_reid.engine.scores import retrieval_scores
from ember_reid.evaluate import QueryGallery, distance_blocks, label_block
from torch import Tensor

# Minimum cosine between an exported float32 embedding and that of PyTorch.
MIN_COSINE = 0.9999
# Images per batch in calibration, and in the second latency measurement.
BATCH = 32


def compare_images(reference: Embedder, exported: Embedder, paths: list[Path]) -> dict[str, dict]:
    """Compare embeddings in batches of 1, 2, 3, ... images: {"images": lowest and mean cosine}."""
    cosines, first, size = [], 0, 1
    while first < len(paths):
        batch = paths[first : first + size]
        cosines.append((reference.embed(batch) * exported.embed(batch)).sum(dim=1))
        first, size = first + size, size % BATCH + 1
    return {"images": _cosines(torch.cat(cosines))}


def compare_tests(
    reference: Embedder, exported: Embedder, benchmarks: Mapping[str, Benchmark]
) -> dict[str, dict]:
    """Compare cosines and the mAP of both networks on each test set.

    Exported embeddings have unit length, so both are scored by the cosine.
    """
    compared = {}
    for name, benchmark in benchmarks.items():
        settings = replace(benchmark.settings, rerank=None, metric="cosine")
        rows: list[tuple[EmbeddingBatch, EmbeddingBatch]] = []
        for batch in benchmark.loader:
            ids = (batch.pids, batch.camids, batch.indices)
            pair = (run_batch(one, batch.images) for one in (reference, exported))
            ours, theirs = (EmbeddingBatch(embeddings, *ids) for embeddings in pair)
            rows.append((ours, theirs))
        ours, theirs = (
            EmbeddingBatch(*(torch.cat(column) for column in zip(*side, strict=True)))
            for side in zip(*rows, strict=True)
        )
        scores = [
            retrieval_scores(side, len(benchmark.query), settings)["mAP"] for side in (ours, theirs)
        ]
        cosines = _cosines(
            torch.nn.functional.cosine_similarity(ours.embeddings, theirs.embeddings)
        )
        compared[name] = {**cosines, "mAP": scores[0], "exported_mAP": scores[1]}
        if reference.metadata.threshold is not None:
            rates = [
                error_rates(side, len(benchmark.query), reference.metadata.threshold)
                for side in (ours, theirs)
            ]
            compared[name] |= {"rates": rates[0], "exported_rates": rates[1]}
    return compared


def error_rates(embedded: EmbeddingBatch, num_query: int, threshold: float) -> dict[str, float]:
    """False match rate and false non-match rate at a cosine distance."""
    sets = QueryGallery.split(embedded.embeddings, embedded.pids, embedded.camids, num_query)
    # Pairs of the same identity, and of different ones.
    near, pairs = (torch.zeros(2, dtype=torch.float64) for _ in range(2))
    for first, last, distances in distance_blocks(
        sets.query, sets.gallery, metric="cosine", copies=6
    ):
        for kind, mask in enumerate(label_block(sets.ids, first, last)):
            near[kind] += (distances[mask] <= threshold).sum()
            pairs[kind] += mask.sum()
    same, different = (near / pairs.clamp(min=1)).tolist()
    return {"false_match_rate": different, "false_non_match_rate": 1 - same}


def run_batch(embedder: Embedder, images: Tensor) -> Tensor:
    """Embed images [B, 3, H, W] -> [B, D]; clips [B, T, 3, H, W] get the mean of their frames."""
    if images.dim() == 4:
        return embedder.embed_batch(images)
    # [B*T, D]
    frames = embedder.embed_batch(images.flatten(0, 1))
    # [B, T, D] -> [B, D]
    return frames.unflatten(0, images.shape[:2]).mean(dim=1)


def _cosines(values: Tensor) -> dict[str, float | int]:
    return {
        "num_images": len(values),
        "lowest_cosine": float(values.min().clamp(max=1)),
        "mean_cosine": float(values.mean().clamp(max=1)),
    }


def describe(compared: Mapping[str, Mapping]) -> Iterator[str]:
    for name, found in compared.items():
        line = f"{name}: {found['num_images']} images, cosine at least {found['lowest_cosine']:.6f}"
        if "mAP" in found:
            line += f", mAP {found['mAP']:.2%} in PyTorch, {found['exported_mAP']:.2%} exported"
        yield line
        if "rates" in found:
            errors = " and ".join(
                f"{name.replace('_', ' ')} {found['rates'][name]:.2%} in PyTorch, "
                f"{found['exported_rates'][name]:.2%} exported"
                for name in found["rates"]
            )
            yield f"at the threshold: {errors}"


def check_gate(compared: Mapping[str, Mapping], *, precision: str, max_drop: float) -> None:
    """Raise ValueError if the export differs too much from PyTorch."""
    for name, found in compared.items():
        drop = found.get("mAP", 0.0) - found.get("exported_mAP", 0.0)
        if not drop <= max_drop:
            raise ValueError(
                f"not written: on {name} mAP drops by {drop:.4f}, --max-drop allows {max_drop:g}; "
                "use a higher precision, other calibration images, or allow more"
            )
        if precision == "float32" and not found["lowest_cosine"] > MIN_COSINE:
            raise ValueError(
                f"not written: on {name} an embedding has the cosine {found['lowest_cosine']:.6f} "
                f"with PyTorch's, it must be above {MIN_COSINE}"
            )


def measure(embedder: Embedder, num_images: int, *, repeats: int = 9) -> float:
    """Median time of a batch in seconds, after one warm-up run."""
    images = torch.randint(0, 256, (num_images, 3, *embedder.metadata.size), dtype=torch.uint8)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        embedder.embed_batch(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
