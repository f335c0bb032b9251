"""`python -m tools.benchmark` in a checkout, `python -m ember_reid.tools.benchmark` elsewhere."""

import sys

from ember_reid.tools.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
