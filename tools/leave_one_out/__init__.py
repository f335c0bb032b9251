"""Train once for each dataset that is left out, and test on that dataset."""

from ember_reid.tools.leave_one_out.command import main

__all__ = ["main"]
