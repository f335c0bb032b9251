"""Teacher and student side by side, at the end of a distillation."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ignite.distributed as idist
import torch
from ember_reid.engine.latency import count_gflops, count_parameters, measure_latency
from torch import nn

logger = logging.getLogger("ember.distill")
_BATCH = 32  # images per timed batch: enough to fill a processor, short on a laptop


class Contestant(NamedTuple):
    """A network and the configuration that it was trained with."""

    name: str
    config: Any
    model: nn.Module


class Row(NamedTuple):
    """One line of the table: scores of the first test set as fractions, size, milliseconds per image."""

    name: str
    mAP: float
    rank1: float
    parameters: int
    gflops: float
    milliseconds: float


def measure_row(
    contestant: Contestant, scores: dict, size: tuple[int, int], *, device: torch.device
) -> Row:
    """`scores` of a test set, and what the network costs for images of (height, width)."""
    images = torch.randn(_BATCH, 3, *size, device=device).to(memory_format=torch.channels_last)
    latency = measure_latency(contestant.model, images, repeats=5)
    return Row(
        contestant.name,
        scores["mAP"],
        scores["Rank-1"],
        count_parameters(contestant.model),
        count_gflops(contestant.model.eval(), images[:1]),
        1000 * latency.per_image,
    )


def format_table(rows: Sequence[Row], dataset: str) -> str:
    """The table in plain text."""
    width = max(len(row.name) for row in rows)
    lines = [
        f"{dataset:<{width}} |    mAP | Rank-1 | params (M) | GFLOPs | ms/image",
        "-" * (width + 51),
    ]
    for row in rows:
        lines.append(
            f"{row.name:<{width}} | {row.mAP:>6.2%} | {row.rank1:>6.2%} | {row.parameters / 1e6:>10.2f} | "
            f"{row.gflops:>6.3f} | {row.milliseconds:>8.2f}"
        )
    return "\n".join(lines)


def report(rows: Sequence[Row], *, dataset: str, folder: Path) -> None:
    """Log the table and write it to `folder`/distillation.json, on rank 0."""
    if idist.get_rank() > 0:
        return
    logger.info("teacher and student\n%s", format_table(rows, dataset))
    content = {"dataset": dataset, "rows": [row._asdict() for row in rows]}
    (folder / "distillation.json").write_text(
        json.dumps(content, indent=2) + "\n", encoding="utf-8"
    )
