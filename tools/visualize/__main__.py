"""`python -m tools.visualize` in a checkout, `python -m ember_reid.tools.visualize` elsewhere."""

import sys

from ember_reid.tools.visualize import main

if __name__ == "__main__":
    sys.exit(main())
