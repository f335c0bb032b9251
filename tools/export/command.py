r"""Export a trained network for other programs, and check that its embeddings do not change.

    python -m tools.export runs/quickstart/checkpoints/best.pt --to onnx --out person.onnx
    python -m tools.export runs/quickstart/checkpoints/best.pt --to onnx --out small.onnx \
        --int8 datasets/quickstart/market1501/bounding_box_train --max-drop 0.01
    python -m tools.export runs/quickstart/checkpoints/best.pt --to exported-program \
        --out person.pt2 --images photos
    python -m tools.export runs/quickstart/checkpoints/best.pt --for boxmot --out person.onnx

The exported network maps uint8 RGB images [B, 3, H, W] of the test size, for any B, to embeddings
of unit length. It normalizes pixels itself; with --for, it expects what that program gives it.
Size, mean, std, fingerprint and threshold are in its metadata. FILE is written only if the export
passes a comparison on the test sets: in float32, the cosine between its embeddings and those of
PyTorch is above 0.9999; in any precision, mAP drops by at most --max-drop. FILE.json contains the
measurements.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from ember_reid.config import Config
from ember_reid.data.build import build_splits
from ember_reid.engine.build import build_benchmarks
from ember_reid.engine.deploy.build import build_deployed_network, load_model, read_inference_config
from ember_reid.engine.deploy.detect import check_checkpoint, detect_format
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.deploy.export import (
    check_format,
    check_packages,
    quantize_onnx,
    write_network,
)
from ember_reid.engine.deploy.metadata import ExportMetadata
from ember_reid.engine.deploy.openvino import quantize_openvino
from ember_reid.engine.deploy.runtimes import create_embedder
from ember_reid.engine.deploy.targets import (
    FORMATS,
    TARGETS,
    Export,
    choose_export,
    encode_pixels,
    write_description,
)
from ember_reid.engine.files import draft_path, replace_text
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.tools.common.cli import Command, add_overrides, add_recipe, echo
from ember_reid.tools.common.inputs import read_images
from ember_reid.tools.export.comparison import (
    BATCH,
    check_gate,
    compare_images,
    compare_tests,
    describe,
    measure,
)
from torch import Tensor

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
        "--to", help=f"{' | '.join(FORMATS)} (default: onnx, or what the program of --for loads)"
    )
    parser.add_argument(
        "--for",
        dest="target",
        help=f"{' | '.join(TARGETS)}: the input, name and metadata that it expects",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write")
    parser.add_argument("--half", action="store_true", help="float16")
    parser.add_argument(
        "--int8",
        metavar="CALIBRATION",
        help="int8 convolutions (onnx, openvino); their ranges are measured on these images "
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
    chosen = choose_export(arguments.to, arguments.target)
    _check(arguments, chosen)
    words = [*arguments.overrides, "TEST.WEIGHT", str(arguments.checkpoint), "DEVICE", "cpu"]
    cfg = read_inference_config(arguments.config, words)
    photos = read_images([arguments.images]) if arguments.images else []
    tests = {} if photos else build_splits(cfg, train=False).tests
    network, metadata = build_deployed_network(cfg, pixels=chosen.pixels)
    reference = create_embedder(network, metadata, CPU)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_path(arguments.out)
    try:
        _write(draft, arguments, chosen, cfg, reference)
        # Written above by this process, so it can be trusted.
        exported = load_model(draft, device="cpu", trust=True)
        metadata = exported.metadata
        yield _describe_export(chosen, metadata)
        if photos:
            compared = compare_images(reference, exported, [image.path for image in photos])
        else:
            benchmarks = build_benchmarks(cfg, tests, network, CPU)
            compared = compare_tests(reference, exported, benchmarks)
        yield from describe(compared)
        check_gate(compared, precision=metadata.precision, max_drop=arguments.max_drop)
        latency = {}
        for num_images in (1, BATCH):
            ours, theirs = (measure(one, num_images) for one in (reference, exported))
            latency[num_images] = {"pytorch": ours, "exported": theirs}
            yield (
                f"batch of {num_images}: {1000 * ours:.1f} ms in PyTorch, {1000 * theirs:.1f} ms "
                f"exported (CPU, {torch.get_num_threads()} threads)"
            )
        _replace(draft, arguments.out)
    finally:
        _remove(draft)
    described = write_description(arguments.out, chosen.target, metadata)
    if described:
        yield f"{described}: read by {chosen.target}"
    report = {"metadata": metadata.to_dict(), "checkpoint": str(arguments.checkpoint)}
    sidecar = Path(f"{arguments.out}.json")
    content = json.dumps(report | {"compared": compared, "latency": latency}, indent=2)
    replace_text(sidecar, content + "\n")
    yield f"{arguments.out} ({_size(arguments.out) / 2**20:.1f} MiB), measured: {sidecar}"


def _write(
    draft: Path, arguments: argparse.Namespace, chosen: Export, cfg: Config, reference: Embedder
) -> None:
    """Write the network in the chosen precision."""
    half_network = arguments.half and FORMATS[chosen.format].half == "network"
    network, metadata = build_deployed_network(cfg, half=half_network, pixels=chosen.pixels)
    if arguments.half:
        metadata = replace(metadata, precision="half")
    write_network(network, metadata, draft, format=chosen.format)
    if arguments.int8:
        images = read_images([arguments.int8])[: arguments.calibration_images]
        batches = _batches(reference, [image.path for image in images])
        quantize = {"onnx": quantize_onnx, "openvino": quantize_openvino}[chosen.format]
        quantize(draft, replace(metadata, precision="int8"), batches)


def _replace(draft: Path, path: Path) -> None:
    """Rename a file or folder; an older one is removed."""
    if path.is_dir():
        old = draft.with_name(f"{draft.name}.old")
        os.replace(path, old)
        os.replace(draft, path)
        shutil.rmtree(old)
    else:
        os.replace(draft, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _batches(embedder: Embedder, paths: list[Path]) -> Iterator[Tensor]:
    """Images [B, 3, H, W] as the network expects them."""
    for first in range(0, len(paths), BATCH):
        images = torch.stack([embedder.prepare(path) for path in paths[first : first + BATCH]])
        yield encode_pixels(images, embedder.metadata.pixels)


def _describe_export(chosen: Export, metadata: ExportMetadata) -> str:
    threshold = "not calibrated" if metadata.threshold is None else f"{metadata.threshold:.4f}"
    height, width = metadata.size
    return (
        f"{chosen.format}, {metadata.precision}: fingerprint {metadata.fingerprint}, "
        f"{height} x {width} pixels, {metadata.embedding_dim} dimensions, threshold {threshold}"
    )


def _check(arguments: argparse.Namespace, chosen: Export) -> None:
    """Check the options before anything is loaded."""
    check_format(chosen.format)
    file_format = FORMATS[chosen.format]
    if arguments.int8 and not file_format.int8:
        able = " or ".join(name for name, known in FORMATS.items() if known.int8)
        raise ValueError(f"--int8 needs --to {able}, not {chosen.format}")
    if arguments.int8 and chosen.format == "openvino":
        check_packages("--int8 with openvino", ("nncf",))
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
    _check_out(arguments.out, chosen)
    check_checkpoint(arguments.checkpoint)


def _check_out(out: Path, chosen: Export) -> None:
    is_folder = FORMATS[chosen.format].is_folder
    if not out.name.endswith(chosen.suffix):
        raise ValueError(f"--out is {out}; with {chosen.describe()} it must end in {chosen.suffix}")
    if out.is_dir() and not is_folder:
        raise ValueError(f"--out {out} is a folder, it must be a file")
    if out.exists() and is_folder and (not out.is_dir() or detect_format(out) != chosen.format):
        raise ValueError(f"--out {out} exists and is not a network in the format {chosen.format}")


main = Command("export", __doc__ or "", add_options, run).main
