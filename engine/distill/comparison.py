"""A table of teachers and student at the end of a distillation."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ignite.distributed as idist
import torch
from ember_reid.engine.files import replace_text
from ember_reid.engine.latency import count_gflops, count_parameters, measure_latency
from torch import nn

logger = logging.getLogger("ember.distill")
# Large enough to use all cores, small enough for the memory of a laptop.
_BATCH_SIZE = 32


@dataclass(frozen=True)
class ComparisonRow:
    """One network: scores of the first test set as fractions, size, milliseconds per image."""

    name: str
    mAP: float
    rank1: float
    parameters: int
    gflops: float
    milliseconds: float


def measure_row(
    name: str,
    model: nn.Module,
    scores: Mapping[str, float],
    size: tuple[int, int],
    *,
    device: torch.device,
) -> ComparisonRow:
    """The scores of a network, and its cost for images of `size` (height, width)."""
    images = torch.randn(_BATCH_SIZE, 3, *size, device=device)
    images = images.to(memory_format=torch.channels_last)
    latency = measure_latency(model, images, repeats=5)
    return ComparisonRow(
        name,
        scores["mAP"],
        scores["Rank-1"],
        count_parameters(model),
        count_gflops(model.eval(), images[:1]),
        1000 * latency.per_image,
    )


def format_table(rows: Sequence[ComparisonRow], dataset: str) -> str:
    """The table in plain text."""
    width = max(len(row.name) for row in rows)
    lines = [
        f"{dataset:<{width}} |    mAP | Rank-1 | params (M) | GFLOPs | ms/image",
        "-" * (width + 51),
    ]
    for row in rows:
        lines.append(
            f"{row.name:<{width}} | {row.mAP:>6.2%} | {row.rank1:>6.2%} | "
            f"{row.parameters / 1e6:>10.2f} | {row.gflops:>6.3f} | {row.milliseconds:>8.2f}"
        )
    return "\n".join(lines)


def write_comparison(rows: Sequence[ComparisonRow], *, dataset: str, folder: Path) -> None:
    """Log the table and write it to `folder`/distillation.json, on rank 0."""
    if idist.get_rank() > 0:
        return
    logger.info("teacher and student\n%s", format_table(rows, dataset))
    content = {"dataset": dataset, "rows": [asdict(row) for row in rows]}
    replace_text(folder / "distillation.json", json.dumps(content, indent=2) + "\n")
