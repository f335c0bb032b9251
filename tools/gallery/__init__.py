"""A gallery of known identities that grows, in one SQLite file."""

from ember_reid.tools.gallery.command import main

__all__ = ["main"]
