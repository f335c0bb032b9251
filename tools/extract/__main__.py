"""The command `python -m tools.extract`."""

import sys

from ember_reid.tools.extract import main

if __name__ == "__main__":
    sys.exit(main())
