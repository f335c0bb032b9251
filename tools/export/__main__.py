"""`python -m tools.export` in a checkout, `python -m ember_reid.tools.export` elsewhere."""

import sys

from ember_reid.tools.export import main

if __name__ == "__main__":
    sys.exit(main())
