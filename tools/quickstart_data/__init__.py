"""Render synthetic people in the layouts of public data sets."""

from ember_reid.tools.quickstart_data.command import main

__all__ = ["main"]
