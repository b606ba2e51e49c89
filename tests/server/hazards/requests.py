"""Requests that must be refused, and where each is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from losswire.wire import OptionScalar
from tests.support.caller import Array, Ask

_FRAMES, _ROWS, _CLASSES = 3, 2, 4


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A request and its expected answer."""

    name: str
    ask: Ask
    path: str
    """The field that must be named."""
    says: str
    """A part of the expected error text."""

    def __str__(self) -> str:
        return self.name


def _longs(values: Any) -> Array:  # noqa: ANN401 (nested numbers)
    return np.asarray(values, np.int64)


def _uniform(*shape: int) -> Array:
    """Return log-probabilities of equal classes."""
    return np.full(shape, -np.log(shape[-1]), np.float32)


@dataclass(frozen=True, kw_only=True)
class _Ctc:
    """A valid evaluation of ctc_loss, of which one part is replaced."""

    log_probs: Array = field(default_factory=lambda: _uniform(_FRAMES, _ROWS, _CLASSES))
    targets: Array = field(default_factory=lambda: _longs([[1, 2], [3, 1]]))
    input_lengths: Array = field(default_factory=lambda: _longs([3, 3]))
    target_lengths: Array = field(default_factory=lambda: _longs([2, 1]))
    options: Mapping[str, OptionScalar] = field(default_factory=dict)

    @property
    def ask(self) -> Ask:
        """The evaluation, with its gradient."""
        return Ask(
            loss="ctc_loss",
            inputs={
                "log_probs": self.log_probs,
                "targets": self.targets,
                "input_lengths": self.input_lengths,
                "target_lengths": self.target_lengths,
            },
            options=self.options,
            gradients_for=("log_probs",),
        )


CTC = _Ctc().ask
"""An evaluation of ctc_loss with nothing wrong."""


def with_targets(rows: list[list[int]]) -> Ask:
    """Return an evaluation of ctc_loss with other targets, of which [2, 1] count."""
    return _Ctc(targets=_longs(rows)).ask


def _labels(name: str, targets: Any, says: str, **others: Any) -> Refusal:  # noqa: ANN401 (nested numbers)
    ask = _Ctc(targets=_longs(targets), **others).ask
    return Refusal(name=name, ask=ask, path='inputs["targets"]', says=says)


def _lengths(name: str, which: str, lengths: Any, says: str, **others: Any) -> Refusal:  # noqa: ANN401
    part: dict[str, Any] = {which: _longs(lengths)}
    ask = _Ctc(**part, **others).ask
    return Refusal(name=name, ask=ask, path=f'inputs["{which}"]', says=says)


LABEL_ABOVE = _labels("a label above", [[1, 9], [3, 1]], "label 9 at [0, 1] is not in [0, 4)")
LABEL_BELOW = _labels("a label below", [[1, -3], [3, 1]], "label -3 at [0, 1] is not in [0, 4)")
LABEL_FAR = _labels("a label far away", [[1, 2], [10**9, 1]], "label 1000000000 at [1, 0]")
BLANK_LABEL = _labels("the blank as a label", [[1, 0], [3, 1]], "label 0 at [0, 1] is the blank")

_CONCATENATED = [
    _labels("a concatenated label above", [1, 2, 4], "label 4 at [2] is not in [0, 4)"),
    _labels(
        "another blank as a label",
        [1, 2, 3],
        "label 3 at [2] is the blank",
        options={"blank": 3},
    ),
    _lengths(
        "concatenated lengths with another sum",
        "target_lengths",
        [1, 1],
        "the lengths add up to 2, but there are 3 targets",
        targets=_longs([1, 2, 3]),
    ),
    _lengths(
        "a concatenated length below 0",
        "target_lengths",
        [-1, 4],
        "length -1 at [0] is not in [0, 3]",
        targets=_longs([1, 2, 3]),
    ),
    _lengths(
        "concatenated lengths whose sum overflows",
        "target_lengths",
        [2**62, 2**62],
        "length 4611686018427387904 at [0] is not in [0, 3]",
        targets=_longs([1, 2, 3]),
    ),
]
_LENGTHS = [
    _lengths("more frames than there are", "input_lengths", [4, 3], "length 4 at [0]"),
    _lengths("frames below 0", "input_lengths", [3, -1], "length -1 at [1] is not in [0, 3]"),
    _lengths("more labels than there are", "target_lengths", [2, 3], "length 3 at [1]"),
    _lengths("labels below 0", "target_lengths", [-2, 1], "length -2 at [0] is not in [0, 2]"),
]
_BLANKS = [
    Refusal(
        name=f"a blank of {blank}",
        ask=replace(CTC, options={"blank": blank}),
        path='options["blank"]',
        says=f"{blank} is not in [0, 4)",
    )
    for blank in (-1, 4)
]


def _without(axis: str) -> Refusal:
    """Leave one axis of the log-probabilities empty."""
    shape = tuple(
        0 if name == axis else length
        for name, length in (("T", _FRAMES), ("N", _ROWS), ("C", _CLASSES))
    )
    rows = shape[1]
    ask = _Ctc(
        log_probs=np.zeros(shape, np.float32),
        targets=np.zeros((rows, 0), np.int64),
        input_lengths=np.zeros(rows, np.int64),
        target_lengths=np.zeros(rows, np.int64),
    ).ask
    return Refusal(
        name=f"ctc_loss without {axis}",
        ask=ask,
        path='inputs["log_probs"].shape',
        says=f"is {list(shape)}; the axis {axis} must not be empty",
    )


def _classes(loss: str, wrong: int, *, several: bool = False, **others: Array) -> Refusal:
    """Return a request with an index that is not one of three classes."""
    target = _longs([[0, -1, -1], [1, wrong, -1]] if several else [1, wrong])
    inputs = {"input": np.zeros((2, 3), np.float32), "target": target, **others}
    ask = Ask(loss=loss, inputs=inputs, gradients_for=("input",))
    where = "[1, 1]" if several else "[1]"
    return Refusal(
        name=f"class {wrong} of {loss}",
        ask=ask,
        path='inputs["target"]',
        says=f"class index {wrong} at {where} is not in",
    )


_INDICES = [
    *(
        _classes(loss, wrong)
        for loss in ("cross_entropy", "nll_loss", "multi_margin_loss")
        for wrong in (3, -1, 2**40)
    ),
    *(
        _classes("linear_cross_entropy", wrong, linear_weight=np.zeros((3, 3), np.float32))
        for wrong in (3, -1)
    ),
    *(_classes("multilabel_margin_loss", wrong, several=True) for wrong in (3, -2, 2**40)),
    Refusal(
        name="a class behind the end of a list",
        ask=Ask(
            loss="multilabel_margin_loss",
            inputs={"input": np.zeros((1, 3), np.float32), "target": _longs([[0, -1, 77]])},
        ),
        path='inputs["target"]',
        says="class index 77 at [0, 2] is not in [-1, 3)",
    ),
]


def _number(loss: str, name: str, wrong: float, says: str) -> Refusal:
    """Return valid inputs but for one number that torch refuses."""
    names = ("input", "target", "var") if loss == "gaussian_nll_loss" else ("input", "target")
    inputs = {each: np.full(3, 0.5, np.float32) for each in names}
    inputs[name][1] = wrong
    return Refusal(
        name=f"{name} {wrong} of {loss}",
        ask=Ask(loss=loss, inputs=inputs, gradients_for=("input",)),
        path=f'inputs["{name}"]',
        says=says,
    )


_RANGES = [
    *(
        _number("binary_cross_entropy", name, wrong, f"{shown} at [1] is not in [0, 1]")
        for name in ("input", "target")
        for wrong, shown in ((1.5, "1.5"), (-0.25, "-0.25"), (float("nan"), "nan"))
    ),
    _number("gaussian_nll_loss", "var", -0.25, "-0.25 at [1] is not in [0, inf]"),
]
_NO_CLASSES = Refusal(
    name="lists of no classes",
    ask=Ask(
        loss="multilabel_margin_loss",
        inputs={"input": np.zeros((2, 0), np.float32), "target": np.zeros((2, 0), np.int64)},
    ),
    path='inputs["input"].shape',
    says="is [2, 0]; the axis C must not be empty",
)

REFUSALS = [
    LABEL_ABOVE,
    LABEL_BELOW,
    LABEL_FAR,
    BLANK_LABEL,
    *_CONCATENATED,
    *_LENGTHS,
    *_BLANKS,
    *map(_without, "TNC"),
    *_INDICES,
    *_RANGES,
    _NO_CLASSES,
]
"""Every request of which one part is unsafe, or has no meaning."""
