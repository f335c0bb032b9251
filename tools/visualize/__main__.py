"""The command `python -m tools.visualize`."""

import sys

from ember_reid.tools.visualize import main

if __name__ == "__main__":
    sys.exit(main())
