"""`python -m tools.gallery` in a checkout, `python -m ember_reid.tools.gallery` elsewhere."""

import sys

from ember_reid.tools.gallery import main

if __name__ == "__main__":
    sys.exit(main())
