"""torch's own samples of its losses, those that its own tests take, through a server.

None is refused that torch's documentation allows, and none is wrong.
"""

import inspect
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from losswire.server.catalogue.record import Reduction
from losswire.server.losses import builtin_registry
from losswire.v1 import status_pb2
from tests.support.caller import Array, Ask, Caller, Result
from tests.support.exact import same_bits, to_array

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what torch imports here is old
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.opinfo.core import OpInfo, SampleInput

_RECORDS: Final = {each.name: each for each in builtin_registry()}
_OPERATORS: Final = [each for each in op_db if each.name.removeprefix("nn.functional.") in _RECORDS]
_DTYPES: Final = (torch.float64, torch.float32)
_TOLERANCES: Final = {torch.float64: 1e-11, torch.float32: 2e-5}

_Predicate = Callable[[Mapping[str, Tensor]], bool]
_REFUSED: Final[Mapping[str, tuple[_Predicate, str]]] = {
    "gaussian_nll_loss": (
        lambda inputs: inputs["target"].dim() < inputs["input"].dim(),
        "a target has the shape of the input, or one axis of 1 in it, but not fewer axes",
    ),
    "multi_margin_loss": (
        lambda inputs: not inputs["input"].dim() or inputs["target"].dim() == inputs["input"].dim(),
        "scores have an axis of classes, and the target of one row is a scalar",
    ),
    "multilabel_margin_loss": (
        lambda inputs: not inputs["input"].dim(),
        "scores have an axis of classes",
    ),
    "multilabel_soft_margin_loss": (
        lambda inputs: "weight" in inputs and inputs["weight"].dim() > 1,
        "a weight is one of each class",
    ),
}
"""What torch takes, but does not document, and is refused therefore: it would couple rows, or
computes something else than it seems to."""


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """A call of one of torch's functions."""

    loss: str
    inputs: Mapping[str, Tensor]
    options: Mapping[str, Any]
    arguments: Mapping[str, Any]
    """The arguments that are neither: torch's own switches."""
    differentiated: tuple[str, ...]
    grad_output: Tensor | None = field(default=None)

    def ask(self, engine: str) -> Ask:
        """Return it as an evaluation."""
        options = dict(self.options)
        reduction = options.pop("reduction", None)
        dtype = options.pop("dtype", None)
        if callable(options.get("distance_function")):
            options["distance_function"] = "euclidean"
        return Ask(
            loss=self.loss,
            inputs={name: _contiguous(each) for name, each in self.inputs.items()},
            options=options,
            reduction=None if reduction is None else Reduction(reduction),
            gradients_for=self.differentiated,
            grad_output=None if self.grad_output is None else _contiguous(self.grad_output),
            compute_dtype=None if dtype is None else str(dtype).removeprefix("torch."),
            engine=engine,
        )

    def torchs(self) -> tuple[Tensor, dict[str, Tensor | None]]:
        """Call torch: the loss, and the gradients; None: it leaves the input out of its graph."""
        leaves = {
            name: each.detach().clone().requires_grad_(name in self.differentiated)
            for name, each in self.inputs.items()
        }
        function = getattr(F, self.loss, None) or getattr(torch, self.loss)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # kl_div, and the options of linear_cross_entropy
            loss = function(**leaves, **self.options, **self.arguments)
        wanted = [leaves[name] for name in self.differentiated]
        start = torch.ones_like(loss) if self.grad_output is None else self.grad_output
        found = torch.autograd.grad(loss, wanted, start, allow_unused=True) if wanted else ()
        return loss.detach(), dict(zip(self.differentiated, found, strict=True))


def _contiguous(tensor: Tensor) -> Array:
    return np.array(to_array(tensor), order="C")


def _samples(operator: OpInfo, dtype: torch.dtype) -> Iterator[_Sample]:
    """Return the samples of an operator, each with and without a cotangent where that may be."""
    torch.manual_seed(0)
    random.seed(0)
    name = operator.name.removeprefix("nn.functional.")
    drawn: Iterator[SampleInput] = operator.sample_inputs(  # type: ignore[no-untyped-call]
        torch.device("cpu"), dtype, requires_grad=True
    )
    for sample in drawn:
        plain = _read(name, sample)
        loss, _ = replace(plain, differentiated=()).torchs()
        yield replace(plain, differentiated=())
        if not loss.dim():
            yield plain
        yield replace(plain, grad_output=torch.randn_like(loss))


def _read(name: str, sample: SampleInput) -> _Sample:
    record = _RECORDS[name]
    function = getattr(F, name, None) or getattr(torch, name)
    if not sample.args and not sample.kwargs:  # some of torch's functions have no signature
        given = {"input": sample.input}
    else:
        bound = inspect.signature(function).bind(sample.input, *sample.args, **sample.kwargs)
        given = dict(bound.arguments)
    inputs = {
        key: each if isinstance(each, Tensor) else torch.tensor(each)
        for key, each in given.items()
        if key in record.inputs and each is not None
    }
    own = {*record.options, "reduction", "dtype"}
    plain = _Sample(
        loss=name,
        inputs={key: each.detach() for key, each in inputs.items()},
        options={key: each for key, each in given.items() if key in own and each is not None},
        arguments={key: each for key, each in given.items() if key not in {*own, *inputs}},
        differentiated=tuple(key for key, each in inputs.items() if each.requires_grad),
    )
    # torch leaves some inputs out of its graph without a word: they have no gradient.
    missing = [key for key, each in plain.torchs()[1].items() if each is None]
    return replace(
        plain, differentiated=tuple(key for key in plain.differentiated if key not in missing)
    )


def _wrong(sample: _Sample, ask: Ask, result: Result, dtype: torch.dtype) -> Iterator[str]:
    """Return what differs from torch: in bits, or with `auto` by more than rounding."""
    loss, gradients = sample.torchs()
    # Another path of torch's own, in parts, rounds differently.
    exact = ask.engine == "autograd" and not sample.arguments.get("options")
    pairs = {"loss": (result.loss, loss)}
    pairs |= {
        name: (result.gradients[name], each) for name, each in gradients.items() if each is not None
    }
    for name, (found, tensor) in pairs.items():
        expected = _contiguous(tensor)
        slack = _TOLERANCES[dtype]
        if exact and not same_bits(found, expected):
            yield f"{ask}: {name} has other bits than torch's: {found}, {expected}"
        elif found.dtype != expected.dtype or found.shape != expected.shape:
            yield f"{ask}: {name} is {found.dtype}{found.shape}"
        elif not np.allclose(found, expected, slack, slack, equal_nan=True):
            yield f"{ask}: {name} is {found}, torch's {expected}"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("engine", ["autograd", "auto"])
@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize(
    "operator", _OPERATORS, ids=lambda each: f"{each.name} {each.variant_test_name}".strip()
)
def test_samples(caller: Caller, operator: OpInfo, dtype: torch.dtype, engine: str) -> None:
    """Value and every gradient, with and without cotangents; `autograd` has torch's bits."""
    samples = list(_samples(operator, dtype))
    asks = [each.ask(engine) for each in samples]
    wrong: list[str] = []
    for sample, ask, outcome in zip(samples, asks, caller.outcomes(asks), strict=True):
        refused, _ = _REFUSED.get(sample.loss, (lambda _: False, ""))
        if isinstance(outcome, status_pb2.Status):
            if not refused(sample.inputs):
                wrong.append(f"{ask}: refused: {outcome.message}")
        elif refused(sample.inputs):
            wrong.append(f"{ask}: not refused")
        else:
            wrong += _wrong(sample, ask, outcome, dtype)
    assert samples
    assert not wrong, "\n".join([f"{len(wrong)} of {len(samples)}:", *wrong[:10]])


def test_every_loss_of_torch_has_samples() -> None:
    """Torch has samples of every loss and activation that is served."""
    names = {each.name.removeprefix("nn.functional.") for each in _OPERATORS}
    assert names == set(_RECORDS)
