"""Choose a decision threshold and estimate its error rates."""

from ember_reid.tools.calibrate.command import main

__all__ = ["main"]
