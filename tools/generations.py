"""The old name of tools.born_again."""

import sys
import warnings

from ember_reid.tools.born_again import main

warnings.warn("tools.generations is now tools.born_again", FutureWarning, stacklevel=1)

if __name__ == "__main__":
    sys.exit(main())
