"""A recipe in words, and what two recipes do differently."""

from ember_reid.tools.explain.command import main

__all__ = ["main"]
