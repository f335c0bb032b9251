"""The command `python -m tools.baselines`."""

import sys

from ember_reid.tools.baselines import main

if __name__ == "__main__":
    sys.exit(main())
