"""Tracklets of several cameras become one identity per individual."""

from ember_reid.tools.link.command import main

__all__ = ["main"]
