"""Render synthetic people in the layouts of public datasets."""

from ember_reid.tools.quickstart_data.command import main

__all__ = ["main"]
