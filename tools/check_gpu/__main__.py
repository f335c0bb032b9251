"""`python -m tools.check_gpu` in a checkout, `python -m ember_reid.tools.check_gpu` elsewhere."""

import sys

from ember_reid.tools.check_gpu import main

if __name__ == "__main__":
    sys.exit(main())
