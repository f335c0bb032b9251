"""Score color histograms and pretrained features, without training."""

from ember_reid.tools.baselines.command import main

__all__ = ["main"]
