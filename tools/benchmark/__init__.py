"""Measure speed and memory on this machine."""

from ember_reid.tools.benchmark.command import main

__all__ = ["main"]
