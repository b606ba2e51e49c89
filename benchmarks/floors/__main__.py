"""`python -m benchmarks.floors [--kept] PROGRAM ...`: settle the allocator, start a floor."""

import sys
from importlib import import_module

from benchmarks.floors.kept_blocks import keep

PROGRAMS = ("memcpy", "echo_client", "echo_server", "torch_here", "projection_here")


def main() -> int:
    """Run a program of this folder; return the exit status."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--kept"]:
        keep()
        del arguments[0]
    name = arguments.pop(0)
    if name not in PROGRAMS:
        message = f"{name} is none of {', '.join(PROGRAMS)}"
        raise SystemExit(message)
    # Not before: numpy, torch and gRPC start threads when they load.
    status: int = import_module(f"benchmarks.floors.{name}").main(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
