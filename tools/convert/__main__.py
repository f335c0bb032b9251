"""The command `python -m tools.convert`."""

import sys

from ember_reid.tools.convert import main

if __name__ == "__main__":
    sys.exit(main())
