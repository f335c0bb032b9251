"""`python -m tools.extract` in a checkout, `python -m ember_reid.tools.extract` elsewhere."""

import sys

from ember_reid.tools.extract import main

if __name__ == "__main__":
    sys.exit(main())
