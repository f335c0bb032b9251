"""`python -m tools.explain` in a checkout, `python -m ember_reid.tools.explain` elsewhere."""

import sys

from ember_reid.tools.explain import main

if __name__ == "__main__":
    sys.exit(main())
