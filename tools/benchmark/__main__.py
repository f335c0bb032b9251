"""The command `python -m tools.benchmark`."""

import sys

from ember_reid.tools.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
