"""Compare size and speed of trained networks: parameters, multiply-adds, time per batch and image.

    python -m tools.benchmark latency runs/quickstart/checkpoints/best.pt

The time of a batch of 128 is what FastReID prints as Q.Time. Parameters do not include classifiers,
which retrieval does not need; GFLOPs are 10^9 multiply-adds of convolutions and matrix products.
Times are medians; the spread is the interquartile range. Scores come from results.json of the run,
if it is beside checkpoints/.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from ember_reid.engine.build import build_trained_model, read_test_config
from ember_reid.engine.latency import Latency, count_gflops, count_parameters, measure_latency
from ember_reid.tools.common.cli import Command, echo


@dataclass(frozen=True)
class Measurement:
    """One line of the table; `scores` are those of the first test set, or empty if unknown."""

    name: str
    scores: dict
    size: tuple[int, int]
    parameters: int
    gflops: float
    device: str
    precision: str
    latency: Latency


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "checkpoints", nargs="+", metavar="CHECKPOINT", help="written by main.py, with their recipe"
    )
    parser.add_argument(
        "--batch", type=int, default=128, help="images per batch (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=int, default=10, help="timed batches (default: %(default)s)"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: all that are available",
    )
    parser.add_argument(
        "--precision",
        choices=("both", "float32", "half"),
        default="both",
        help="half: float16, bfloat16 on CPUs",
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0: the default of torch"
    )


def run(options: argparse.Namespace) -> None:
    """Measure each checkpoint on each device and print the table."""
    for name in ("batch", "repeats"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} is {getattr(options, name)}, it must be at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but torch sees no CUDA device here; use --device cpu")
    if options.threads:
        torch.set_num_threads(options.threads)
    configs = [read_test_config(None, ["TEST.WEIGHT", path]) for path in options.checkpoints]
    rows = []
    for device in _devices(options.device):
        for path, cfg in zip(options.checkpoints, configs, strict=True):
            rows += _measure(Path(path), cfg, device, options)
    echo(format_table(rows, batch=options.batch))


def _devices(choice: str) -> list[torch.device]:
    names = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [torch.device(name) for name in (names if choice == "auto" else [choice])]


def _measure(
    path: Path, cfg, device: torch.device, options: argparse.Namespace
) -> list[Measurement]:
    model = build_trained_model(cfg, device)
    size = tuple(cfg.INPUT.SIZE_TEST)
    images = torch.randn(options.batch, 3, *size, device=device).contiguous(
        memory_format=torch.channels_last
    )
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    kinds = {"float32": None, str(half).removeprefix("torch."): half}
    wanted = {
        "both": list(kinds),
        "float32": ["float32"],
        "half": [str(half).removeprefix("torch.")],
    }
    return [
        Measurement(
            _name(path),
            _scores(path),
            size,
            count_parameters(model),
            count_gflops(model, images[:1]),
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"cpu x {torch.get_num_threads()}",
            precision,
            measure_latency(model, images, repeats=options.repeats, amp_dtype=kinds[precision]),
        )
        for precision in wanted[options.precision]
    ]


def _name(path: Path) -> str:
    """The name of the run's folder, which is more informative than best.pt."""
    return path.parent.parent.name if path.parent.name == "checkpoints" else path.name


def _scores(path: Path) -> dict:
    """Scores of the run that wrote the checkpoint, on its first test set."""
    results = path.parent.parent / "results.json"
    if path.parent.name != "checkpoints" or not results.is_file():
        return {}
    return next(iter(json.loads(results.read_text(encoding="utf-8")).values()), {})


def format_table(rows: list[Measurement], *, batch: int) -> str:
    """Format the table as plain text; times in milliseconds."""
    width = max(len(row.name) for row in rows)
    where = max(len(row.device) for row in rows)
    head = (
        f"{'network':<{width}} |    mAP | Rank-1 | {'input':>7} | params (M) | GFLOPs | "
        f"{'device':<{where}} | precision | batch of {batch} (ms) | spread | image (ms)"
    )
    lines = [head, "-" * len(head)]
    for row in rows:
        time = row.latency
        mAP, rank1 = (
            f"{row.scores[key]:.2%}" if key in row.scores else "-" for key in ("mAP", "Rank-1")
        )
        cells = [
            f"{row.name:<{width}}",
            f"{mAP:>6}",
            f"{rank1:>6}",
            f"{'x'.join(map(str, row.size)):>7}",
            f"{row.parameters / 1e6:>10.2f}",
            f"{row.gflops:>6.3f}",
            f"{row.device:<{where}}",
            f"{row.precision:<9}",
            f"{1000 * time.median:>{len(str(batch)) + 14}.1f}",
            f"{1000 * (time.upper - time.lower):>6.1f}",
            f"{1000 * time.per_image:>10.3f}",
        ]
        lines.append(" | ".join(cells))
    return "\n".join(lines)


main = Command("benchmark latency", __doc__ or "", add_options, run).main
