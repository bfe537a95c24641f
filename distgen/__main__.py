"""`python -m distgen`."""

import sys

from distgen.cli import main

if __name__ == "__main__":
    sys.exit(main())
