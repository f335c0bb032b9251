"""List the shipped recipes with their dataset, network and score."""

from ember_reid.tools.recipes.command import main

__all__ = ["main"]
