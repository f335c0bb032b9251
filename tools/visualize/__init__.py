"""Show ranked retrieval results as images and HTML."""

from ember_reid.tools.visualize.command import main

__all__ = ["main"]
