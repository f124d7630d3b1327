"""`python -m destseg` is the command `destseg`."""

import sys

from destseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
