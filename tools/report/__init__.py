"""Write an HTML page about training runs."""

from ember_reid.tools.report.command import main

__all__ = ["main"]
