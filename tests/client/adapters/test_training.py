"""Training with a remote loss by torch's own function ends at the parameters of a local one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from losswire.client import Client
from losswire.client.torch import RemoteLoss
from losswire.server.catalogue.record import Kind
from losswire.server.losses import builtin_registry
from losswire.wire import OptionScalar
from tests.support.exact import same_bits, to_tensor
from tests.support.reference import REFERENCES
from tests.support.sampling import (
    draw_ground,
    draw_inputs,
    generator,
    gradient_choices,
    option_variants,
    presences,
)

_STEPS = 50
_RECORDS = {each.name: each for each in builtin_registry() if each.kind is Kind.LOSS}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The same number of threads as the server has for evaluations of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Start:
    """All inputs of a loss, the names of those that are trained, and the options."""

    inputs: Mapping[str, Tensor]
    trained: tuple[str, ...]
    options: Mapping[str, OptionScalar]


def _drawn(name: str, layout: str, seed: str) -> _Start:
    record = _RECORDS[name]
    rng = generator("training", name, layout, seed)
    described = next(each for each in record.layouts if each.name == layout)
    ground = draw_ground(record, described, rng, groups=(6, 5), shortest=2, longest=7)
    names = presences(ground)[-1]
    options = option_variants(ground, rng)[-1]
    specs = described.inputs
    dtypes = {each: "float32" if specs[each].is_float else specs[each].dtypes[0] for each in names}
    inputs = draw_inputs(ground, dtypes, options, rng)
    tensors = {key: to_tensor(np.asarray(each)) for key, each in inputs.items()}
    return _Start(tensors, gradient_choices(ground, dtypes)[-1], options)


def _moves(name: str, start: _Start) -> bool:
    """Return whether the loss has a slope where training begins."""
    inputs = {
        key: each.clone().requires_grad_(key in start.trained) for key, each in start.inputs.items()
    }
    loss = REFERENCES[name].call(inputs, start.options, "sum")
    leaves = [inputs[key] for key in start.trained]
    slopes = torch.autograd.grad(loss, leaves, materialize_grads=True)
    return any(bool((each.nan_to_num(0.0) != 0).any()) for each in slopes)


def _train(
    name: str, loss: Callable[[Mapping[str, Tensor]], Tensor], start: _Start
) -> dict[str, Tensor]:
    """Move the inputs themselves downhill; those that have a range, through a sigmoid."""
    inputs, trained = start.inputs, start.trained
    ranged = [
        each for each in trained if _RECORDS[name].inputs[each].rule_for(is_float=True).enforced
    ]
    leaves = {
        each: (inputs[each].clamp(0.05, 0.95).logit() if each in ranged else inputs[each].clone())
        for each in trained
    }
    optimizer = torch.optim.SGD(
        [each.requires_grad_() for each in leaves.values()], lr=0.05, momentum=0.9
    )
    for _ in range(_STEPS):
        optimizer.zero_grad()
        moved = {key: leaf.sigmoid() if key in ranged else leaf * 1 for key, leaf in leaves.items()}
        loss({**inputs, **moved}).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {key: leaf.detach() for key, leaf in leaves.items()}


_CASES = [
    (name, layout.name, reduction.value)
    for name, record in _RECORDS.items()
    for layout in record.layouts
    for reduction in record.reductions
    if reduction.value != "none"
]


@pytest.mark.parametrize(("name", "layout", "reduction"), _CASES)
def test_fifty_steps_end_at_torchs_parameters(
    client: Client, name: str, layout: str, reduction: str
) -> None:
    """Not one bit differs after 50 steps of SGD with engine="autograd"."""
    draws = (_drawn(name, layout, f"{reduction} {turn}") for turn in range(50))
    start = next(each for each in draws if _moves(name, each))
    options, reference = start.options, REFERENCES[name]
    settings: Any = {**options, "reduction": reduction, "engine": "autograd"}
    remote = RemoteLoss(client, name, **settings)
    expected = _train(name, lambda each: reference.call(each, options, reduction), start)
    found = _train(name, lambda each: remote(**each), start)
    for key, parameter in expected.items():
        assert same_bits(found[key].numpy(), parameter.numpy()), key
    assert any(not torch.equal(expected[key], start.inputs[key]) for key in start.trained)
