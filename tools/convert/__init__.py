"""Convert weight files of other code bases."""

from ember_reid.tools.convert.command import main

__all__ = ["main"]
