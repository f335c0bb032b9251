"""Scores without training: color histograms and pretrained features."""

from ember_reid.tools.baselines.command import main

__all__ = ["main"]
