"""The command `python -m tools.quickstart_data`."""

import sys

from ember_reid.tools.quickstart_data import main

if __name__ == "__main__":
    sys.exit(main())
