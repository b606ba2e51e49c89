"""Callers of a loss whose computing takes longer than its call, with a connection each.

Clients in one process share a connection, which one worker serves, so that each caller is a
process: `compute_bound ADDRESS ROWS FEATURES CLASSES`. It says how far its first result is from the
right one, then makes a call for each line of its input and answers with one.
"""

import sys
from functools import partial

from benchmarks import data
from benchmarks.processes import Process
from benchmarks.threads import share_among_threads
from benchmarks.worker import Spec, Timing, Work
from losswire.client import ArrayInput, Client, EvaluationResult

_LOSS = "linear_cross_entropy"
_TIMEOUT = 120.0


class ComputeBound(Work):
    """Calls of `linear_cross_entropy` with a resident head, from several connections."""

    def __init__(self, address: str, spec: Spec) -> None:
        """Start the callers."""
        arguments = [address, *map(str, (spec.rows, spec.columns, spec.classes))]
        self._callers = [
            Process("benchmarks.compute_bound", *arguments) for _ in range(spec.callers)
        ]

    def check(self) -> str:
        """Have each caller check its first result."""
        notes = [each.read_line().strip() for each in self._callers]
        return notes[0]

    def call(self) -> object:
        """Have one caller make a call."""
        return _ask(self._callers[0])

    def run(self, count: int) -> Timing:
        """Have all callers make a number of calls together."""
        return share_among_threads([partial(_ask, each) for each in self._callers], count)

    def close(self) -> None:
        """End the callers."""
        for each in self._callers:
            each.end()


def _ask(caller: Process) -> str:
    caller.write_line("call")
    return caller.read_line()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Call until the input ends."""
    address = sys.argv[1]
    rows, features, classes = map(int, sys.argv[2:])
    spec = Spec(work="", rows=rows, columns=features, classes=classes)
    with Client(address, timeout=_TIMEOUT) as client:
        inputs: dict[str, ArrayInput] = {
            "input": data.logits(rows, features),
            # Resident, so that a call has few bytes.
            "linear_weight": client.put(data.head(classes, features)),
            "target": data.classes(rows, classes),
        }

        def call() -> EvaluationResult:
            return client.evaluate(_LOSS, inputs, gradients=["input"])

        result = call()
        errors = data.check_projected(spec, float(result.loss), result.gradients["input"])
        _say(f"{errors}; by {result.transport}")
        for _ in sys.stdin:
            call()
            _say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
