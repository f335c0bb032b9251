"""The command `python -m tools.recipes`."""

import sys

from ember_reid.tools.recipes import main

if __name__ == "__main__":
    sys.exit(main())
