"""A caller of large evaluations beside what is measured: `beside ADDRESS ROWS COLUMNS`.

It begins and stops at a line on its standard input, and answers each with one.
"""

import sys
from threading import Event, Thread

import numpy as np

from benchmarks import data
from benchmarks.commands import obey, say
from losswire.client import Client, keep_large_blocks

_TIMEOUT = 120.0
_FIRST_CALLS = 2
"""Calls before the first answer: the heap takes a few to settle."""


def _call_on(client: Client, rows: int, columns: int, wanted: Event) -> None:
    """Make one call after another while they are wanted."""
    logits = data.logits(rows, columns, "float32")
    inputs = {"input": logits, "target": data.target("cross_entropy", rows, columns)}
    out = {"input": np.empty_like(logits)}
    for _ in range(_FIRST_CALLS):
        client.evaluate("cross_entropy", inputs, gradients=["input"], out=out)
    say("ready")
    while True:
        wanted.wait()
        client.evaluate("cross_entropy", inputs, gradients=["input"], out=out)


def main() -> int:
    """Begin and stop until the input ends."""
    address, rows, columns = sys.argv[1:]
    keep_large_blocks()
    wanted = Event()
    client = Client(address, timeout=_TIMEOUT)
    arguments = (client, int(rows), int(columns), wanted)
    Thread(target=_call_on, args=arguments, daemon=True).start()
    return obey(wanted)


if __name__ == "__main__":
    sys.exit(main())
