"""Score a color histogram and the untrained network of a recipe.

    python -m tools.baselines -c quickstart/people
    python -m tools.baselines -c market1501/cpu_r18 DATASETS.ROOT /data

Compare the scores of a trained network with these: on easy data, a histogram alone finds most
matches. The histogram counts RGB values in 8 x 8 x 8 bins. Its square root is compared by
cosine (Bhattacharyya coefficient).
"""

import argparse
from collections.abc import Sequence

import torch
from ember_reid.config import load_config
from ember_reid.data.build import build_splits
from ember_reid.engine.build import build_benchmarks, build_device
from ember_reid.engine.evaluator import score
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.modeling import ReidOutput, build_model
from ember_reid.tools.common.cli import Command, add_overrides, add_recipe, echo
from torch import Tensor, nn

BINS = 8


class ColorHistogram(nn.Module):
    """Map normalized images [B, (T,) 3, H, W] to square roots of color frequencies [B, 512]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor) -> ReidOutput:
        # [B, (T,) 3, H, W], 0..255
        pixels = ((images.float() * self.std + self.mean) * 255).round().long()
        levels = pixels * BINS // 256
        red, green, blue = levels.unbind(dim=-3)
        # [B, pixels]
        colors = ((red * BINS + green) * BINS + blue).flatten(1)
        counts = torch.zeros(len(images), BINS**3, device=images.device)
        counts.scatter_add_(1, colors, torch.ones_like(colors, dtype=counts.dtype))
        return ReidOutput(embedding=(counts / colors.shape[1]).sqrt())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe(parser, required=True)
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    baselines(options.config, options.overrides)


def baselines(recipe: str, overrides: list[str]) -> dict[str, dict[str, dict]]:
    """Score both on the test sets of the recipe: {"color histogram": {dataset: scores}, ...}."""
    cfg = load_config(recipe, overrides)
    device = build_device(cfg)
    torch.manual_seed(cfg.SEED)
    corpus = build_splits(cfg)
    network = build_model(cfg, num_classes=corpus.num_classes)
    models = {
        "color histogram": ColorHistogram(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD).to(device),
        "untrained network": network.to(device).to(memory_format=torch.channels_last),
    }
    results = {}
    for name, model in models.items():
        echo(f"--- {name}")
        results[name] = score(build_benchmarks(cfg, corpus.tests, model, device))
    return results


main = Command("baselines", __doc__ or "", add_options, run).main
