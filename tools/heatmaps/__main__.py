"""`python -m tools.heatmaps` in a checkout, `python -m ember_reid.tools.heatmaps` elsewhere."""

import sys

from ember_reid.tools.heatmaps import main

if __name__ == "__main__":
    sys.exit(main())
