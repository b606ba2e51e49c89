"""`python -m losswire.server`, and what `losswire-server` starts."""

import os
import sys

from losswire.server.memory.allocator import keep_large_blocks


def main() -> int:
    """Set the allocator's policy, then run the command line."""
    # Before the imports below: numpy and torch start threads when they load.
    keep_large_blocks()
    # gRPC's core would write its own lines between the JSON lines of the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from losswire.server.cli import main as run  # noqa: PLC0415

    return run()


if __name__ == "__main__":
    sys.exit(main())
