"""How a process beside what is measured is told to begin and to stop."""

import sys
from threading import Event


def obey(wanted: Event) -> int:
    """Begin and stop at a line of the input, each of which is answered; returns at its end."""
    for line in sys.stdin:
        if line.strip() == "begin":
            wanted.set()
        else:
            wanted.clear()
        say(line.strip())
    return 0


def say(text: str) -> None:
    """Write a line of output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
