"""Show which image regions an embedding depends on."""

from ember_reid.tools.heatmaps.command import main

__all__ = ["main"]
