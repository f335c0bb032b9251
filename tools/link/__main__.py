"""`python -m tools.link` in a checkout, `python -m ember_reid.tools.link` elsewhere."""

import sys

from ember_reid.tools.link import main

if __name__ == "__main__":
    sys.exit(main())
