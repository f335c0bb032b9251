"""`python -m tools.quickstart_data` in a checkout, `python -m ember_reid.tools....` elsewhere."""

import sys

from ember_reid.tools.quickstart_data import main

if __name__ == "__main__":
    sys.exit(main())
