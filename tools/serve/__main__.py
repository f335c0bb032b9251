"""`python -m tools.serve` in a checkout, `python -m ember_reid.tools.serve` elsewhere."""

import sys

from ember_reid.tools.serve import main

if __name__ == "__main__":
    sys.exit(main())
