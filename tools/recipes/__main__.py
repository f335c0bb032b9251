"""`python -m tools.recipes` in a checkout, `python -m ember_reid.tools.recipes` elsewhere."""

import sys

from ember_reid.tools.recipes import main

if __name__ == "__main__":
    sys.exit(main())
