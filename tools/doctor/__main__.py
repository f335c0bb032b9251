"""The command `python -m tools.doctor`."""

import sys

from ember_reid.tools.doctor import main

if __name__ == "__main__":
    sys.exit(main())
