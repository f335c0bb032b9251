"""`python -m tools.crops` in a checkout, `python -m ember_reid.tools.crops` elsewhere."""

import sys

from ember_reid.tools.crops import main

if __name__ == "__main__":
    sys.exit(main())
