"""The command `python -m tools.heatmaps`."""

import sys

from ember_reid.tools.heatmaps import main

if __name__ == "__main__":
    sys.exit(main())
