"""`python -m tools.born_again` in a checkout, `python -m ember_reid.tools.born_again` elsewhere."""

import sys

from ember_reid.tools.born_again import main

if __name__ == "__main__":
    sys.exit(main())
