"""Mixed floating types: every pair of types of every pair of inputs of every loss, beside torch.

What torch takes is taken, with torch's type of the loss; what it refuses is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Final

import numpy as np
import pytest
import torch
from torch import Tensor

from losswire.server.catalogue.layouts import FLOATS
from losswire.server.catalogue.record import Kind, LossRecord, Reduction
from losswire.server.losses import builtin_registry
from losswire.v1 import status_pb2
from tests.support.caller import Array, Ask, Caller, Result
from tests.support.exact import epsilon, same_bits, to_array, to_tensor
from tests.support.reference import REFERENCES
from tests.support.sampling import (
    NUMPY,
    Ground,
    draw_ground,
    draw_inputs,
    generator,
    presences,
    required_options,
)

_RECORDS: Final = {each.name: each for each in builtin_registry() if each.kind is Kind.LOSS}
_Outcome = Result | status_pb2.Status
_HALVES: Final = ("float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class _Mix:
    """An evaluation of mixed types, and torch's answer."""

    ask: Ask
    loss: Tensor | None
    """None: torch refuses it."""
    gradients: Mapping[str, Tensor] | None
    """None: torch refuses to differentiate it."""


def _mixes(record: LossRecord) -> Iterator[_Mix]:
    """Return every pair of types of every pair of inputs, in every layout."""
    for layout in record.layouts:
        rng = generator("promotion", record.name, layout.name)
        ground = draw_ground(record, layout, rng, groups=(4, 3), shortest=2)
        names = presences(ground)[-1]
        options = required_options(ground)
        real = ground.floating(names)
        indices = {each: layout.inputs[each].dtypes[0] for each in names if each not in real}
        drawn = draw_inputs(ground, dict.fromkeys(real, "float64") | indices, options, rng)
        # Numbers that every type holds, so that no result depends on which one rounds.
        drawn = {
            each: np.asarray(np.round(array * 64) / 64) if each in real else array
            for each, array in drawn.items()
        }
        for dtypes in _assignments(real):
            if all(dtype in layout.inputs[each].dtypes for each, dtype in dtypes.items()):
                types = {**indices, **dtypes}
                yield _mixed(
                    ground, {each: drawn[each].astype(NUMPY[types[each]]) for each in drawn}
                )


def _assignments(names: Sequence[str]) -> list[dict[str, str]]:
    """Return every pair of types of every pair of inputs, the other inputs of either type."""
    found = {
        tuple(pair.get(each, rest) for each in names)
        for first, second in combinations(names, 2)
        for one, other in permutations(FLOATS, 2)
        for rest in (one, other)
        for pair in ({first: one, second: other},)
    }
    return [dict(zip(names, types, strict=True)) for types in sorted(found)]


def _mixed(ground: Ground, inputs: Mapping[str, Array]) -> _Mix:
    """Ask torch: the loss unreduced, and the gradients of its sum."""
    wanted = tuple(
        each for each in ground.differentiable(list(inputs)) if inputs[each].dtype.kind != "i"
    )
    options = required_options(ground)
    ask = Ask(
        loss=ground.record.name,
        inputs=inputs,
        options=options,
        reduction=Reduction.SUM,
        gradients_for=wanted,
    )
    leaves = {
        each: to_tensor(array).requires_grad_(each in wanted) for each, array in inputs.items()
    }
    try:
        loss = REFERENCES[ask.loss].call(leaves, options, "sum")
    except (RuntimeError, ValueError):
        return _Mix(ask=ask, loss=None, gradients=None)
    try:
        found = torch.autograd.grad(loss, [leaves[each] for each in wanted])
    except RuntimeError:
        return _Mix(ask=ask, loss=loss.detach(), gradients=None)
    return _Mix(ask=ask, loss=loss.detach(), gradients=dict(zip(wanted, found, strict=True)))


def _wrong(mix: _Mix, plain: _Outcome, full: _Outcome) -> Iterator[str]:
    """Return what is wrong about the answers without and with gradients."""
    for what, torchs, outcome in (
        ("the loss", mix.loss, plain),
        ("the gradients", mix.gradients, full),
    ):
        refusal = outcome.message if isinstance(outcome, status_pb2.Status) else None
        if (torchs is None) != (refusal is not None):
            yield f"torch {'refuses' if torchs is None else 'takes'} {what}; {refusal}"
        elif refusal is not None and ".data_type: is " not in refusal:
            yield f"refused for another reason: {refusal}"
    if isinstance(plain, Result) and mix.loss is not None:
        yield from _wrong_loss(mix, mix.loss, plain.loss)
    if isinstance(full, Result) and mix.gradients is not None:
        for name, gradient in mix.gradients.items():
            found = full.gradients[name]
            if found.dtype != mix.ask.inputs[name].dtype:
                yield f"the gradient of {name} is {found.dtype}"
            if not _near(found, gradient, mix):
                yield f"the gradient of {name} is {found}, torch's {gradient}"


def _wrong_loss(mix: _Mix, torchs: Tensor, found: Array) -> Iterator[str]:
    own = str(torchs.dtype).removeprefix("torch.")
    if found.dtype.name != ("float32" if own in _HALVES else own):
        yield f"the loss is {found.dtype.name}, torch's {own}"
    if not _near(found, torchs, mix):
        yield f"the loss is {found}, torch's {torchs}"


def _near(found: Array, torchs: Tensor, mix: _Mix) -> bool:
    """Compare bits, or within the precision of the halves, in which torch computes."""
    types = {each.dtype.name for each in mix.ask.inputs.values()}
    expected = to_array(torchs)
    if not types & set(_HALVES) and mix.ask.engine == "autograd":
        return same_bits(found, expected)
    slack = 40 * max(epsilon(each) for each in types & set(FLOATS))
    return np.allclose(found.astype(float), expected.astype(float), slack, slack)


@pytest.mark.parametrize("engine", ["autograd", "auto"])
@pytest.mark.parametrize("name", _RECORDS)
def test_pairs_of_types(caller: Caller, name: str, engine: str) -> None:
    """Taken where torch takes it, with torch's type of the loss, forward and backward."""
    mixes = [replace(each, ask=replace(each.ask, engine=engine)) for each in _mixes(_RECORDS[name])]
    plain = caller.outcomes([replace(each.ask, gradients_for=()) for each in mixes])
    full = caller.outcomes([each.ask for each in mixes])
    wrong = [
        f"{mix.ask}: {text}"
        for mix, one, other in zip(mixes, plain, full, strict=True)
        for text in _wrong(mix, one, other)
    ]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(mixes)}:", *wrong[:12]])
