"""The command `python -m tools.born_again`."""

import sys

from ember_reid.tools.born_again import main

if __name__ == "__main__":
    sys.exit(main())
