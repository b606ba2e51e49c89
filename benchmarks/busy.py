"""A process that burns processor time beside what is measured, and calls nobody.

It begins and stops at a line on its standard input, and answers each with one.
"""

import sys
from threading import Event, Thread


def _burn(wanted: Event) -> None:
    """Use a processor while that is wanted."""
    while True:
        wanted.wait()


def main() -> int:
    """Begin and stop until the input ends."""
    wanted = Event()
    Thread(target=_burn, args=(wanted,), daemon=True).start()
    _say("ready")
    for line in sys.stdin:
        if line.strip() == "begin":
            wanted.set()
        else:
            wanted.clear()
        _say(line.strip())
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
