"""Train a series of students, each of which teaches the next."""

from ember_reid.tools.born_again.command import main

__all__ = ["main"]
