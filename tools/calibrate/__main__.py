"""`python -m tools.calibrate` in a checkout, `python -m ember_reid.tools.calibrate` elsewhere."""

import sys

from ember_reid.tools.calibrate import main

if __name__ == "__main__":
    sys.exit(main())
