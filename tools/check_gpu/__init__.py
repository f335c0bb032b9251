"""Check a GPU: results, speed and memory."""

from ember_reid.tools.check_gpu.command import main

__all__ = ["main"]
