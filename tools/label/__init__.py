"""Propose identities of unlabeled images, and correct them on a page."""

from ember_reid.tools.label.command import main

__all__ = ["main"]
