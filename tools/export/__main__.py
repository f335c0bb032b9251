"""The command `python -m tools.export`."""

import sys

from ember_reid.tools.export import main

if __name__ == "__main__":
    sys.exit(main())
