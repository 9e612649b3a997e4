"""`python -m stepgrant_demo_real [--json] [--keep]`: see `show.py`. `make demo-real` runs it."""

import sys

from stepgrant_demo_real.show import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
