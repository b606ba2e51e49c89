"""The published range of every option is what the server accepts, infinity and NaN included."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from losswire.server.catalogue.describe import describe
from losswire.server.catalogue.options import OptionContext, Range
from losswire.server.catalogue.record import LossRecord, Reduction
from losswire.server.catalogue.shapes import Bindings
from losswire.server.losses import builtin_registry
from losswire.wire import OptionScalar
from tests.support.caller import Ask, Caller, Result, calling
from tests.support.exact import same_bits
from tests.support.sampling import (
    Ground,
    doubles,
    draw_ground,
    draw_inputs,
    generator,
    presences,
    required_options,
)

INF, NAN = math.inf, math.nan
_OPTIONS = [(record, name) for record in builtin_registry() for name in record.options]
_DOUBLES = (0.0, -0.0, 5e-324, 1e-30, 0.3, 1.0, 1.5, 2.0, 2.5, 1e300, INF)
_INTEGERS = (0, 1, 2, 3, 255, 2**63 - 1, -1, -2, -3, -100, -(2**63))
_INTERVAL = re.compile(r"([\[(])(-?\w[\w.]*|-inf), (-?\w[\w.]*)([\])])")

Published = Callable[[float, Ground], bool]
"""Whether a value is in a published range."""


def _bound(text: str, ground: Ground) -> float:
    """Read a bound: a number, the length of an axis, or `rank`, which is 1 of a scalar."""
    lengths = {**ground.bindings.axes, "rank": max(len(ground.values_shape), 1)}
    sign, name = (-1, text[1:]) if text.startswith("-") else (1, text)
    return sign * float(lengths.get(name, name))


def _published(text: str) -> Published:
    """Read one rule of a published range."""
    found = _INTERVAL.search(text)
    if found:
        left, low, high, right = found.groups()
        return lambda value, ground: (
            (value > _bound(low, ground) or (left == "[" and value == _bound(low, ground)))
            and (value < _bound(high, ground) or (right == "]" and value == _bound(high, ground)))
        )
    match text:
        case "negative with class probabilities":
            return lambda value, ground: value < 0 or "probabilities" not in ground.layout.name
        case "left out with class probabilities":
            return lambda _, ground: "probabilities" not in ground.layout.name
        case "finite and at least 0 if D is empty":
            return lambda value, ground: ground.bindings.axes["D"] > 0 or 0 <= value < INF
    message = f"no test knows how to read the range {text!r}"
    raise AssertionError(message)


def _grounds(record: LossRecord) -> Iterator[Ground]:
    """Return an evaluation's axes for every layout, and those with an empty axis D."""
    for layout in record.layouts:
        ground = draw_ground(record, layout, generator("options", record.name, layout.name))
        yield ground
        if "D" in ground.bindings.axes:
            empty = Bindings({**ground.bindings.axes, "D": 0}, ground.bindings.groups)
            yield Ground(record, layout, empty)


def _candidates(record: LossRecord, name: str) -> list[OptionScalar]:
    """Return values of an option's type: of every size, and of a text also one that is none."""
    kind = record.option_fields[name].type
    if kind is bool:
        return [False, True]
    if kind is str:
        return [*record.options[name].choices, "", "nothing"]
    if kind is int:
        return [*_INTEGERS]
    return [NAN, *_DOUBLES, *(-value for value in _DOUBLES)]


@pytest.fixture(scope="module")
def caller(server: str) -> Iterator[Caller]:
    """A connection to the server."""
    with calling(server) as connected:
        yield connected


@pytest.mark.parametrize(
    ("record", "name"), _OPTIONS, ids=lambda each: each if isinstance(each, str) else each.name
)
def test_what_is_published_is_accepted_and_nothing_else(
    caller: Caller, record: LossRecord, name: str
) -> None:
    """Every value that the range names, infinity too where it does; NaN only without a range."""
    [info] = [each for each in describe(record).options if each.name == name]
    rules = [_published(text) for text in info.range.split("; ") if text]
    for ground in _grounds(record):
        values = _candidates(record, name)
        expected = [
            value in info.choices
            if isinstance(value, str)
            else all(rule(value, ground) for rule in rules)
            for value in values
        ]
        asks = [
            _ask(ground, {name: value}, drawn_for={name: value} if accepted else {})
            for value, accepted in zip(values, expected, strict=True)
        ]
        for ask, accepted, outcome in zip(asks, expected, caller.outcomes(asks), strict=True):
            assert isinstance(outcome, Result) is accepted, f"{ask}: {outcome}"
            if not isinstance(outcome, Result):
                assert {each.field for each in outcome.violations} == {f'options["{name}"]'}


def _ask(
    ground: Ground, options: dict[str, OptionScalar], drawn_for: dict[str, OptionScalar]
) -> Ask:
    """Return an evaluation with some options, whose inputs are accepted together with others."""
    required = required_options(ground)
    rng = generator("options", ground.record.name, *options)
    dtypes = doubles(ground, presences(ground)[0])
    return Ask(
        loss=ground.record.name,
        inputs=draw_inputs(ground, dtypes, {**required, **drawn_for}, rng),
        options={**required, **options},
        reduction=Reduction.NONE,
    )


@pytest.mark.parametrize(
    ("rule", "text", "accepted"),
    [
        (Range(), "[-inf, inf]", (-INF, 0.0, 1.0, INF)),
        (Range(low=0.0), "[0, inf]", (0.0, 1.0, INF)),
        (Range(low=0.0, open_low=True), "(0, inf]", (1.0, INF)),
        (Range(low=0.0, open_high=True), "[0, inf)", (0.0, 1.0)),
        (Range(open_low=True, high=1.0), "(-inf, 1]", (0.0, 1.0)),
    ],
)
def test_brackets_say_whether_a_bound_is_included(
    rule: Range, text: str, accepted: tuple[float, ...]
) -> None:
    """An infinite bound is like any other, and NaN is in no range."""
    context = OptionContext(None, Bindings())
    assert rule.rule == text
    for value in (-INF, 0.0, 1.0, INF, NAN):
        assert (rule.violation(value, context) is None) is (value in accepted), value


_PAIR = {"input": np.array([1.0, -2.0, 0.5]), "target": np.zeros(3)}
_TRIPLET = {
    name: generator(name).standard_normal((3, 4)) for name in ("anchor", "positive", "negative")
}


@pytest.mark.parametrize(
    ("loss", "option", "value"),
    [
        ("smooth_l1_loss", "beta", INF),
        ("huber_loss", "delta", INF),
        ("triplet_margin_loss", "margin", INF),
        ("triplet_margin_loss", "p", INF),
        ("triplet_margin_loss", "p", -INF),
        ("triplet_margin_with_distance_loss", "margin", INF),
    ],
)
def test_infinite_options_have_torchs_results(
    caller: Caller, loss: str, option: str, value: float
) -> None:
    """By both engines, loss and gradient."""
    inputs = _PAIR if loss in ("smooth_l1_loss", "huber_loss") else _TRIPLET
    first = next(iter(inputs))
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    leaf = tensors[first] = tensors[first].clone().requires_grad_()
    expected = getattr(F, loss)(**tensors, **{option: value}, reduction="none")
    expected.sum().backward()
    assert leaf.grad is not None
    ask = Ask(
        loss=loss,
        inputs=inputs,
        options={option: value},
        reduction=Reduction.NONE,
        gradients_for=(first,),
        grad_output=np.ones(expected.shape),
    )
    for result in caller.results([ask, replace(ask, engine="auto")]):
        assert same_bits(result.loss, expected.detach().numpy())
        np.testing.assert_array_equal(result.gradients[first], leaf.grad.numpy())
