"""Check a dataset before training."""

from ember_reid.tools.doctor.command import main

__all__ = ["main"]
