"""Losses over sequences whose alignment with the target is unknown."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from losswire.server.declare import (
    INTEGERS,
    LOG_PROBABILITIES,
    Array,
    Context,
    Cost,
    IndexOf,
    Input,
    Option,
    Shape,
    Spec,
    Terms,
    Values,
    doubles,
    indices,
    layout,
    loss,
    position,
)


@dataclass(frozen=True, kw_only=True)
class Labels(Values):
    """Classes other than the blank; the padding after a sequence may have any values."""

    @property
    def rule(self) -> str:
        """The rule in words."""
        return (
            "labels in [0, C) other than blank; the padding after a sequence's target_length "
            "is ignored"
        )

    @property
    def enforced(self) -> bool:
        """Always: torch reads and writes memory at these without a check."""
        return True

    def violation(self, array: Array, context: Context) -> str | None:
        """Name the first label that is not a class, or is the blank."""
        classes, blank = context.bindings.axes["C"], context.options["blank"]
        wrong = (array < 0) | (array >= classes) | (array == blank)
        if "S" in context.bindings.axes:
            lengths = context.inputs["target_lengths"].astype(np.int64)
            wrong &= np.arange(array.shape[-1]) < lengths[:, np.newaxis]
        if not wrong.any():
            return None
        where = np.unravel_index(int(wrong.argmax()), array.shape)
        label = int(array[where])
        problem = f"is not in [0, {classes})" if label != blank else "is the blank"
        return f"label {label} at {position(where)} {problem}"

    def example(self, rng: np.random.Generator, shape: Shape, context: Context) -> Array:
        """Draw classes around the blank."""
        drawn = rng.integers(0, max(context.bindings.axes["C"] - 1, 1), shape)
        return np.where(drawn != context.options["blank"], drawn, context.bindings.axes["C"] - 1)


@dataclass(frozen=True, kw_only=True)
class FrameLengths(Values):
    """Lengths of sequences of frames."""

    @property
    def rule(self) -> str:
        """The rule in words."""
        return "lengths in [0, T]"

    @property
    def enforced(self) -> bool:
        """Always."""
        return True

    def violation(self, array: Array, context: Context) -> str | None:
        """Name the first length that is out of range."""
        return _length_outside(array, context.bindings.axes["T"])

    def example(self, rng: np.random.Generator, shape: Shape, context: Context) -> Array:
        """Draw lengths of at least half of the frames."""
        frames = context.bindings.axes["T"]
        return rng.integers((frames + 1) // 2, frames + 1, shape)


@dataclass(frozen=True, kw_only=True)
class TargetLengths(Values):
    """Lengths of padded targets, or of targets that are concatenated."""

    @property
    def rule(self) -> str:
        """The rule in words."""
        return "lengths in [0, S], or lengths of at least 0 that add up to L"

    @property
    def enforced(self) -> bool:
        """Always."""
        return True

    def violation(self, array: Array, context: Context) -> str | None:
        """Name the first length that is out of range, or the sum that is wrong."""
        axes = context.bindings.axes
        if "S" in axes:
            return _length_outside(array, axes["S"])
        if problem := _length_outside(array, axes["L"]):
            return problem
        total = int(array.sum(dtype=np.int64))
        if total == axes["L"]:
            return None
        return f"the lengths add up to {total}, but there are {axes['L']} targets"

    def example(self, rng: np.random.Generator, shape: Shape, context: Context) -> Array:
        """Draw lengths that fit into the frames even if all labels are the same."""
        axes = context.bindings.axes
        fitting = (context.inputs["input_lengths"].astype(np.int64) + 1) // 2
        if axes["C"] == 1:
            fitting = fitting * 0  # there is no label but the blank
        if "S" in axes:
            return rng.integers(0, np.minimum(fitting, axes["S"]) + 1, shape)
        lengths = np.zeros(fitting.size, np.int64)
        for _ in range(axes["L"] if lengths.size else 0):
            room = np.flatnonzero(lengths < fitting.reshape(-1))
            lengths[rng.choice(room) if room.size else 0] += 1
        return lengths.reshape(shape)


def _length_outside(array: Array, most: int) -> str | None:
    """Name the first length that is not in [0, most]."""
    wrong = (array < 0) | (array > most)
    if not wrong.any():
        return None
    where = np.unravel_index(int(wrong.argmax()), array.shape)
    return f"length {array[where]} at {position(where)} is not in [0, {most}]"


def _lattice(context: Context) -> int:
    """Count the states of all alignments: a label or a blank, at each frame of each row."""
    axes = context.bindings.axes
    longest = int(context.inputs["target_lengths"].max())
    return axes["T"] * axes.get("N", 1) * (2 * longest + 1)


def _integers(axes: str) -> Spec:
    return indices(axes, INTEGERS[::-1])


@loss(
    layouts=(
        layout(
            "unbatched",
            log_probs=doubles("T C"),
            targets=_integers("L"),
            input_lengths=_integers(""),
            target_lengths=_integers(""),
            values="",
            nonempty=("T", "C"),
        ),
        layout(
            "padded",
            log_probs=doubles("T N C"),
            targets=_integers("N S"),
            input_lengths=_integers("N"),
            target_lengths=_integers("N"),
            values="N",
            nonempty=("T", "N", "C"),
        ),
        layout(
            "concatenated",
            log_probs=doubles("T N C"),
            targets=_integers("L"),
            input_lengths=_integers("N"),
            target_lengths=_integers("N"),
            values="N",
            nonempty=("T", "N", "C"),
        ),
    ),
    inputs={
        "log_probs": Input(
            meaning="The log-probability of each class at each frame, made by log_softmax.",
            differentiable=True,
            values=(LOG_PROBABILITIES,),
        ),
        "targets": Input(
            meaning="The labels of each sequence, padded or concatenated.",
            values=(Labels(),),
        ),
        "input_lengths": Input(
            meaning="The number of valid frames of each sequence.", values=(FrameLengths(),)
        ),
        "target_lengths": Input(
            meaning="The number of labels of each sequence.", values=(TargetLengths(),)
        ),
    },
    options={
        "blank": Option(meaning="The class that represents no label.", rules=(IndexOf(axis="C"),)),
        "zero_infinity": Option(
            meaning="Whether an infinite value, and its gradient, becomes 0: that of a sequence "
            "with too few frames for its labels."
        ),
    },
    mean_denominator="the number of rows, after each value was divided by its target_length "
    "(by 1 where that is 0)",
    separable=False,
    cost=Cost(scratch=_lattice),
    source="torch.nn.functional.ctc_loss",
)
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    reduction: str = "none",
) -> Terms:
    """Connectionist temporal classification: labels without an alignment to frames.

    The value of a row is `-log(p)`, where `p` is the summed probability of all ways
    to stretch its labels over its frames, with blanks between them. The gradient
    with respect to `log_probs` is torch's: `exp(log_probs)` minus the posterior of
    each class. It is right once it is passed on through the log_softmax that made
    `log_probs`, and is not the partial derivative of the value by itself. Rows are
    along the second axis of `log_probs`, so that a batch cannot be cut at its
    first.
    """
    values = F.ctc_loss(
        log_probs,
        targets.long(),
        input_lengths.long(),
        target_lengths.long(),
        blank=blank,
        reduction=reduction,
        zero_infinity=zero_infinity,
    )
    scale = target_lengths.clamp(min=1).double().reciprocal()
    return Terms(values, numerator_scale=scale)
