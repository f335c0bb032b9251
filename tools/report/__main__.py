"""`python -m tools.report` in a checkout, `python -m ember_reid.tools.report` elsewhere."""

import sys

from ember_reid.tools.report import main

if __name__ == "__main__":
    sys.exit(main())
