"""`python -m tools.doctor` in a checkout, `python -m ember_reid.tools.doctor` elsewhere."""

import sys

from ember_reid.tools.doctor import main

if __name__ == "__main__":
    sys.exit(main())
