"""Batch: which of the evaluations that wait anyway are computed as one.

Only evaluations of one form are joined, and only where a row gets the same bits
whatever rows stand beside it, so that nobody can tell from a result who shared it.
"""

from collections.abc import Sequence
from typing import Final

from losswire.server.compute.work import Work

_STACK_BYTES: Final = 256 << 10
"""The size of all inputs of what is computed as one: enough to hide the cost of a call of
torch, and little enough to stay in the cache."""


def stacks(works: Sequence[Work | None], device_type: str) -> list[list[int]]:
    """Cut evaluations into those that are computed as one, by their positions.

    They stay in order, except that some are drawn forward to the first of their form.
    """
    found: list[list[int]] = []
    open_stacks: dict[int, tuple[list[int], int]] = {}
    for position, work in enumerate(works):
        if work is None or not work.stackable_on(device_type):
            found.append([position])
            continue
        stack, room = open_stacks.get(id(work.form), ([], 0))
        if room < work.input_bytes:
            stack, room = [], _STACK_BYTES
            found.append(stack)
        stack.append(position)
        open_stacks[id(work.form)] = stack, room - work.input_bytes
    return found
