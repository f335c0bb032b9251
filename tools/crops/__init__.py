"""Videos or frames with tracks become crops and a CSV list to train on."""

from ember_reid.tools.crops.command import main

__all__ = ["main"]
