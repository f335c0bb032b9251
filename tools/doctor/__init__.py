"""Check a data set before training."""

from ember_reid.tools.doctor.command import main

__all__ = ["main"]
