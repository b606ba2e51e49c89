"""Inputs that broadcast: every form that torch documents, and no other."""

from collections.abc import Iterator
from dataclasses import replace

import grpc
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from losswire.server.catalogue.record import Reduction
from losswire.server.catalogue.shapes import Shape
from losswire.v1 import loss_service_pb2_grpc
from tests.support.caller import Array, Ask, Caller
from tests.support.chunks import cuts_of, evaluate_chunked
from tests.support.exact import same_bits
from tests.support.sampling import generator

MEAN, SUM, NONE = Reduction.MEAN, Reduction.SUM, Reduction.NONE
_GAUSSIAN = "gaussian_nll_loss"
_INPUTS: tuple[Shape, ...] = ((3,), (1,), (4, 3), (1, 3), (4, 2, 3), (0, 3))


def _with_a_one(shape: Shape) -> list[Shape]:
    """Return a shape, and each of those that have one axis of 1 in it."""
    ones = ((*shape[:axis], 1, *shape[axis + 1 :]) for axis in range(len(shape)))
    return list(dict.fromkeys((shape, *ones)))


def _forms() -> Iterator[tuple[Shape, Shape, Shape]]:
    """Return every documented combination of the shapes of input, target and var."""
    for shape in _INPUTS:
        for target in _with_a_one(shape):
            for var in (*_with_a_one(shape), shape[:-1]):
                yield shape, target, var


def _ask(shape: Shape, target: Shape, var: Shape, reduction: Reduction = MEAN) -> Ask:
    rng = generator("broadcasts", str((shape, target, var)))
    names = ("input", "target", "var")
    return Ask(
        loss=_GAUSSIAN,
        inputs={
            "input": rng.standard_normal(shape),
            "target": rng.standard_normal(target),
            "var": rng.uniform(0.5, 2.0, var),
        },
        options={"full": True},
        reduction=reduction,
        gradients_for=names,
        grad_output=np.asarray(rng.standard_normal(shape if reduction is NONE else ())),
    )


def _torch(ask: Ask) -> tuple[Array, dict[str, Array]]:
    """Return the loss and the gradients that torch's own function has."""
    tensors = {name: torch.from_numpy(array).requires_grad_() for name, array in ask.inputs.items()}
    assert ask.reduction is not None
    loss = F.gaussian_nll_loss(
        tensors["input"],
        tensors["target"],
        tensors["var"],
        full=True,
        reduction=ask.reduction.value,
    )
    given = torch.from_numpy(ask.grad_output)
    gradients = torch.autograd.grad(loss, list(tensors.values()), given)
    found = {name: each.numpy() for name, each in zip(tensors, gradients, strict=True)}
    return loss.detach().numpy(), found


@pytest.mark.parametrize("reduction", [MEAN, SUM, NONE])
def test_gaussian_nll_loss_broadcasts_as_torch_documents(
    caller: Caller, reduction: Reduction
) -> None:
    """Target and var with any one axis of 1, and var with one axis less, are torch's results."""
    asks = [_ask(*shapes, reduction) for shapes in _forms()]
    for engine in ("autograd", "auto"):
        results = caller.results([replace(ask, engine=engine) for ask in asks])
        for ask, result in zip(asks, results, strict=True):
            loss, gradients = _torch(ask)
            np.testing.assert_allclose(result.loss, loss, rtol=1e-14, err_msg=str(ask))
            for name, expected in gradients.items():
                found = result.gradients[name]
                assert found.shape == ask.inputs[name].shape
                np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=str(ask))
                assert engine == "auto" or same_bits(found, expected), str(ask)


@pytest.mark.parametrize("var", [(), (4, 3), (1, 3), (4, 1), (4,)])
@pytest.mark.parametrize("target", [(4, 3), (1, 3), (4, 1)])
def test_removed_values_leave_what_they_share(caller: Caller, target: Shape, var: Shape) -> None:
    """Rows of weight 0 contribute 0, and to elements that all rows share only the others add."""
    ask = _ask((4, 3), target, var)
    if not var:
        ask = replace(ask, gradients_for=("input", "target"))
    kept = np.array([0, 2])
    rest = {
        name: array[kept] if array.shape[:1] == (4,) else array
        for name, array in ask.inputs.items()
    }
    poisoned = {name: array.copy() for name, array in ask.inputs.items()}
    for name, array in poisoned.items():
        if array.shape[:1] == (4,):
            array[[1, 3]] = np.inf if name == "var" else np.nan
    weighted = replace(ask, inputs=poisoned, sample_weight=np.array([1.0, 0.0, 1.0, 0.0]))
    found, expected = caller.results([weighted, replace(ask, inputs=rest)])
    assert (found.count, found.mean_denominator) == (6, 6.0)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-14)
    for name, gradient in found.gradients.items():
        if gradient.shape[:1] == (4,):
            assert not gradient[[1, 3]].any()
            gradient = gradient[kept]  # noqa: PLW2901 (the rest is 0)
        np.testing.assert_allclose(gradient, expected.gradients[name], rtol=1e-12)


@pytest.mark.parametrize("var", [(4, 3), (1, 3), (4, 1), (4,)])
@pytest.mark.parametrize("target", [(4, 3), (1, 3), (4, 1)])
def test_rows_stream_beside_what_they_share(server: str, target: Shape, var: Shape) -> None:
    """Inputs whose first axis is 1 are in the header of a chunked call; their gradients add up."""
    ask = _ask((4, 3), target, var)
    streamed = [name for name, array in ask.inputs.items() if array.shape[0] == 4]
    loss, gradients = _torch(ask)
    with grpc.insecure_channel(server) as channel:
        stub = loss_service_pb2_grpc.LossServiceStub(channel)
        for sizes in ([1], [3, 1], [0]):
            answer = evaluate_chunked(stub, ask.message(), streamed, cuts_of(4, sizes))
            assert answer.result.sum == pytest.approx(float(loss) * 12, rel=1e-14)
            for name, expected in gradients.items():
                np.testing.assert_allclose(answer.gradients[name], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "name", "wrong"),
    [
        ((4, 3), "target", (3,)),
        ((4, 3), "target", (4,)),
        ((4, 3), "target", ()),
        ((3,), "target", ()),
        ((4, 3), "target", (1, 1)),
        ((4, 2, 3), "target", (2, 3)),
        ((1, 3), "target", (4, 3)),
        ((4, 3), "var", (3,)),
        ((4, 3), "var", (1, 1)),
        ((4, 2, 3), "var", (2, 3)),
        ((4, 2, 3), "var", (4, 1)),
    ],
)
def test_other_shapes_are_refused(caller: Caller, shape: Shape, name: str, wrong: Shape) -> None:
    """Fewer axes of a target, several axes of 1 and axes longer than the input's: by name."""
    shapes = {"input": shape, "target": shape, "var": shape, name: wrong}
    refusal = caller.refusal(_ask(shapes["input"], shapes["target"], shapes["var"]))
    assert f'inputs["{name}"].shape: is {list(wrong)}; expected {list(shape)}' in refusal
    assert "of which one axis may be 1 and none may be left out" in refusal


_SHAPE = (2, 3, 4)
_WEIGHTS = ((), (4,), (1,), (3, 1), (3, 4), (2, 1, 1), (1, 3, 4), _SHAPE)


@pytest.mark.parametrize("shape", _WEIGHTS)
def test_weights_of_binary_losses_broadcast_as_torch_documents(
    caller: Caller, shape: Shape
) -> None:
    """`weight` is repeated to the input's shape, `pos_weight` broadcasts to that of the target."""
    rng = generator("binary", str(shape))
    inputs = {"input": rng.uniform(0, 1, _SHAPE), "target": rng.uniform(0, 1, _SHAPE)}
    weights = {name: rng.uniform(0.5, 2.0, shape) for name in ("weight", "pos_weight")}
    cases = {
        "binary_cross_entropy": {**inputs, "weight": weights["weight"]},
        "binary_cross_entropy_with_logits": {**inputs, **weights},
    }
    for loss, given in cases.items():
        tensors = {name: torch.from_numpy(array) for name, array in given.items()}
        expected = getattr(F, loss)(**tensors, reduction="none").numpy()
        [found] = caller.results([Ask(loss=loss, inputs=given, reduction=NONE)])
        assert same_bits(found.loss, expected), loss
