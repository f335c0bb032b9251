r"""Export a trained network for other programs, and check that its embeddings do not change.

    python -m tools.export runs/quickstart/checkpoints/best.pt --to onnx --out person.onnx
    python -m tools.export runs/quickstart/checkpoints/best.pt --to onnx --out small.onnx \
        --int8 datasets/quickstart/market1501/bounding_box_train --max-drop 0.01
    python -m tools.export runs/quickstart/checkpoints/best.pt --to exported-program \
        --out person.pt2 --images photos

The exported network maps uint8 RGB images [B, 3, H, W] of the test size, for any B, to embeddings
of unit length. It normalizes pixels itself. Size, mean, std, fingerprint and threshold are in its
metadata. FILE is written only if the export passes a comparison on the test sets: in float32, the
cosine between its embeddings and those of PyTorch is above 0.9999; in any precision, mAP drops by
at most --max-drop. FILE.json contains the measurements.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from ember_reid.data.batch import EmbeddingBatch
from ember_reid.data.build import build_splits
from ember_reid.engine.build import build_benchmarks
from ember_reid.engine.deploy.build import build_deployed_network, load_model, read_inference_config
from ember_reid.engine.deploy.detect import check_checkpoint
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.deploy.export import (
    PACKAGES,
    check_target,
    quantize_onnx,
    write_network,
)
from ember_reid.engine.deploy.metadata import ExportMetadata
from ember_reid.engine.deploy.runtimes import create_embedder
from ember_reid.engine.evaluator import Benchmark
from ember_reid.engine.files import draft_path, replace_text
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.engine.scores import retrieval_scores
from ember_reid.evaluate import QueryGallery, distance_blocks, label_block
from ember_reid.tools.common.cli import Command, add_overrides, add_recipe, echo
from ember_reid.tools.common.inputs import read_images
from torch import Tensor

SUFFIXES = {"onnx": ".onnx", "torchscript": ".ts", "exported-program": ".pt2"}
# Minimum cosine between an exported float32 embedding and that of PyTorch.
MIN_COSINE = 0.9999
# Images per batch in calibration, and in the second latency measurement.
BATCH = 32
CPU = torch.device("cpu")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="a checkpoint of main.py, or any weight file together with --config",
    )
    add_recipe(parser)
    parser.add_argument(
        "--to", default="onnx", help=f"{' | '.join(PACKAGES)} (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write")
    parser.add_argument("--half", action="store_true", help="the backbone in float16")
    parser.add_argument(
        "--int8",
        metavar="CALIBRATION",
        help="int8 convolutions (onnx); their ranges are measured on these images "
        "(a folder, a CSV file or an image)",
    )
    parser.add_argument(
        "--calibration-images",
        type=int,
        default=256,
        metavar="N",
        help="maximum number of calibration images (default %(default)s)",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        default=0.005,
        help="allowed drop of mAP, a fraction (default %(default)s)",
    )
    parser.add_argument(
        "--images",
        metavar="SOURCE",
        help="compare on these images instead of the test sets (no mAP; float32)",
    )
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    for line in export(options):
        echo(line)


def export(arguments: argparse.Namespace) -> Iterator[str]:
    """Export, compare and measure the network, then write the file; yield lines for the user.

    Raises:
        ValueError: options that contradict each other, missing packages, or an export whose
            embeddings differ from those of PyTorch.
    """
    _check(arguments)
    words = [*arguments.overrides, "TEST.WEIGHT", str(arguments.checkpoint), "DEVICE", "cpu"]
    cfg = read_inference_config(arguments.config, words)
    photos = read_images([arguments.images]) if arguments.images else []
    tests = {} if photos else build_splits(cfg, train=False).tests
    network, metadata = build_deployed_network(cfg)
    reference = create_embedder(network, metadata, CPU)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_path(arguments.out)
    try:
        if arguments.half:
            network, metadata = build_deployed_network(cfg, half=True)
        write_network(network, metadata, draft, target=arguments.to)
        if arguments.int8:
            images = read_images([arguments.int8])[: arguments.calibration_images]
            batches = _batches(reference, [image.path for image in images])
            quantize_onnx(draft, draft, replace(metadata, precision="int8"), batches)
        # Written above by this process, so it can be trusted.
        exported = load_model(draft, device="cpu", trust=True)
        metadata = exported.metadata
        yield _describe_export(arguments.to, metadata)
        if photos:
            compared = compare_images(reference, exported, [image.path for image in photos])
        else:
            benchmarks = build_benchmarks(cfg, tests, network, CPU)
            compared = compare_tests(reference, exported, benchmarks)
        yield from _describe(compared)
        check_gate(compared, precision=metadata.precision, max_drop=arguments.max_drop)
        latency = {}
        for num_images in (1, BATCH):
            ours, theirs = (measure(one, num_images) for one in (reference, exported))
            latency[num_images] = {"pytorch": ours, "exported": theirs}
            yield (
                f"batch of {num_images}: {1000 * ours:.1f} ms in PyTorch, {1000 * theirs:.1f} ms "
                f"exported (CPU, {torch.get_num_threads()} threads)"
            )
        os.replace(draft, arguments.out)
    finally:
        draft.unlink(missing_ok=True)
    report = {"metadata": metadata.to_dict(), "checkpoint": str(arguments.checkpoint)}
    sidecar = Path(f"{arguments.out}.json")
    content = json.dumps(report | {"compared": compared, "latency": latency}, indent=2)
    replace_text(sidecar, content + "\n")
    yield f"{arguments.out} ({arguments.out.stat().st_size / 2**20:.1f} MiB), measured: {sidecar}"


def _batches(embedder: Embedder, paths: list[Path]) -> Iterator[Tensor]:
    """Images [B, 3, H, W] as the network expects them."""
    for first in range(0, len(paths), BATCH):
        yield torch.stack([embedder.prepare(path) for path in paths[first : first + BATCH]])


def _describe_export(target: str, metadata: ExportMetadata) -> str:
    threshold = "not calibrated" if metadata.threshold is None else f"{metadata.threshold:.4f}"
    height, width = metadata.size
    return (
        f"{target}, {metadata.precision}: fingerprint {metadata.fingerprint}, {height} x {width} "
        f"pixels, {metadata.embedding_dim} dimensions, threshold {threshold}"
    )


def _check(arguments: argparse.Namespace) -> None:
    """Check the options before anything is loaded."""
    check_target(arguments.to)
    if arguments.int8 and arguments.to != "onnx":
        raise ValueError(
            f"--int8 uses the quantization of onnxruntime; it needs --to onnx, not {arguments.to}"
        )
    if arguments.int8 and arguments.half:
        raise ValueError("--half and --int8 exclude each other")
    if arguments.images and (arguments.int8 or arguments.half):
        raise ValueError(
            "--half and --int8 are checked by mAP, which --images cannot provide: omit --images "
            "and name a test set with DATASETS.TESTS"
        )
    if arguments.calibration_images < 1:
        raise ValueError(
            f"--calibration-images is {arguments.calibration_images}, it must be at least 1"
        )
    if not 0 <= arguments.max_drop <= 1:
        raise ValueError(
            f"--max-drop is {arguments.max_drop:g}, it is a fraction of mAP in 0..1: 0.005 is half "
            "a point"
        )
    if arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out} is a folder, it must be a file")
    if arguments.out.suffix != SUFFIXES[arguments.to]:
        raise ValueError(
            f"--out is {arguments.out}; with --to {arguments.to} it must end in "
            f"{SUFFIXES[arguments.to]}"
        )
    check_checkpoint(arguments.checkpoint)


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
            pair = (_run(one, batch.images) for one in (reference, exported))
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


def _run(embedder: Embedder, images: Tensor) -> Tensor:
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


def _describe(compared: Mapping[str, Mapping]) -> Iterator[str]:
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


main = Command("export", __doc__ or "", add_options, run).main
