"""`python -m graftlab ...` is `graftlab ...`."""

import sys

from graftlab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
