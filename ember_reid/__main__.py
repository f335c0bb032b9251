"""`python -m ember_reid` is the command `ember-reid`."""

import sys

from ember_reid.cli import main

if __name__ == "__main__":
    sys.argv[0] = "ember-reid"
    sys.exit(main())
