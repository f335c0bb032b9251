"""The command `python -m tools.label`."""

import sys

from ember_reid.tools.label import main

if __name__ == "__main__":
    sys.exit(main())
