"""Chooses the evaluations that wait for the GPU and can be computed together.

Only evaluations of one skeleton are stacked, and only by operators that return the same bits for
a row whatever rows are beside it, so that no result tells who shared its stack.
"""

from collections.abc import Sequence

from losswire.server.compute import thresholds
from losswire.server.compute.paths import stackable
from losswire.server.compute.work import Work


def stacks(works: Sequence[Work | None], device_type: str) -> list[list[int]]:
    """Cut evaluations into stacks, by their positions; on a CPU each is computed alone.

    They stay in order, except that some move forward to the first of their skeleton.
    """
    found: list[list[int]] = []
    open_stacks: dict[int, tuple[list[int], int]] = {}
    for position, work in enumerate(works):
        if device_type == "cpu" or work is None or not stackable(work):
            found.append([position])
            continue
        stack, room = open_stacks.get(id(work.skeleton), ([], 0))
        if room < work.input_bytes:
            stack, room = [], thresholds.STACK_BYTES
            found.append(stack)
        stack.append(position)
        open_stacks[id(work.skeleton)] = stack, room - work.input_bytes
    return found
