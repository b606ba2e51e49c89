"""A process that burns processor time beside what is measured, and calls nobody.

It begins and stops at a line on its standard input, and answers each with one.
"""

import sys
from threading import Event, Thread

from benchmarks.commands import obey, say


def _burn(wanted: Event) -> None:
    """Use a processor while that is wanted."""
    while True:
        wanted.wait()


def main() -> int:
    """Begin and stop until the input ends."""
    wanted = Event()
    Thread(target=_burn, args=(wanted,), daemon=True).start()
    say("ready")
    return obey(wanted)


if __name__ == "__main__":
    sys.exit(main())
