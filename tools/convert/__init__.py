"""Convert weight files of other codebases."""

from ember_reid.tools.convert.command import main

__all__ = ["main"]
