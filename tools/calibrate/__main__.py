"""The command `python -m tools.calibrate`."""

import sys

from ember_reid.tools.calibrate import main

if __name__ == "__main__":
    sys.exit(main())
