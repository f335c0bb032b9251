"""Describe a recipe in words, and list the differences between two recipes."""

from ember_reid.tools.explain.command import main

__all__ = ["main"]
