"""`python -m tools.convert` in a checkout, `python -m ember_reid.tools.convert` elsewhere."""

import sys

from ember_reid.tools.convert import main

if __name__ == "__main__":
    sys.exit(main())
