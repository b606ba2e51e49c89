"""Makes `python -m losswire.client.cli` the command line."""

import sys

from losswire.client.cli import main

if __name__ == "__main__":
    sys.exit(main())
