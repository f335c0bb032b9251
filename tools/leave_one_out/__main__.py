"""The command `python -m tools.leave_one_out`."""

import sys

from ember_reid.tools.leave_one_out import main

if __name__ == "__main__":
    sys.exit(main())
