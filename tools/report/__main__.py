"""The command `python -m tools.report`."""

import sys

from ember_reid.tools.report import main

if __name__ == "__main__":
    sys.exit(main())
