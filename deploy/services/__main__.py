"""`python deploy/services COMMAND`: see stepgrant_services/cli.py."""

import sys

from stepgrant_services.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
