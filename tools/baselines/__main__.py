"""`python -m tools.baselines` in a checkout, `python -m ember_reid.tools.baselines` elsewhere."""

import sys

from ember_reid.tools.baselines import main

if __name__ == "__main__":
    sys.exit(main())
