"""The command `python -m tools.search`."""

import sys

from ember_reid.tools.search import main

if __name__ == "__main__":
    sys.exit(main())
