"""The loss of sequences."""

from typing import Any

import numpy as np

from tests.conformance.exact import Array, Number, objects, total
from tests.conformance.formulas.terms import Terms, zeros


def ctc_loss(
    log_probs: Array,
    targets: Array,
    input_lengths: Array,
    target_lengths: Array,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
) -> Terms:
    """-log of the summed probability of all ways to stretch the labels over the frames.

    torch's gradient by log_probs is exp(log_probs) - posterior, which is this value's own plus
    exp(log_probs); a term of value 0 adds that.
    """
    values = zeros(target_lengths.shape)
    for row, (frames, labels) in enumerate(
        zip(input_lengths.tolist(), target_lengths.tolist(), strict=True)
    ):
        logs = log_probs[:frames, row]
        states = [blank]
        for label in targets[row, :labels].tolist():
            states += [label, blank]
        likely = _all_alignments(np.exp(logs), states, blank)
        if likely.value or not zero_infinity:
            softened = total(np.exp(logs))
            values[row] = -likely.log() + (softened - softened.value)
    scaled = values / np.maximum(target_lengths, 1)
    return Terms(values=values, numerators=scaled)


def _all_alignments(probabilities: Array, states: list[int], blank: int) -> Number:
    """Add up the probability of every path that visits the states in order."""
    reached = [Number(1), Number(1)] + [Number(0)] * (len(states) - 2)
    for frame, row in enumerate(probabilities):
        before = reached
        reached = []
        for position, state in enumerate(states):
            ways = before[position]
            if frame:
                ways = total(objects(_predecessors(before, states, position, blank), (3,)))
            reached.append(ways * row[state])
    return reached[-1] + reached[-2]


def _predecessors(before: list[Number], states: list[int], position: int, blank: int) -> list[Any]:
    """List where a path may have been a frame ago: here, one back, or two over a blank."""
    none = Number(0)
    skips = position > 1 and states[position] not in (blank, states[position - 2])
    return [
        before[position],
        before[position - 1] if position else none,
        before[position - 2] if skips else none,
    ]
