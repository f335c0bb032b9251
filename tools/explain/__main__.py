"""The command `python -m tools.explain`."""

import sys

from ember_reid.tools.explain import main

if __name__ == "__main__":
    sys.exit(main())
