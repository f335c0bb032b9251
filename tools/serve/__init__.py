"""A gallery over HTTP."""

from ember_reid.tools.serve.command import main

__all__ = ["main"]
