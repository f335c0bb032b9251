"""`python -m tools.search` in a checkout, `python -m ember_reid.tools.search` elsewhere."""

import sys

from ember_reid.tools.search import main

if __name__ == "__main__":
    sys.exit(main())
