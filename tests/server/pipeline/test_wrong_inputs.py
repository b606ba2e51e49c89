"""Every wrong input is refused precisely, by every method, and harms nothing."""

import os
import pickle
from pathlib import Path
from urllib.parse import quote

import grpc
import numpy as np
import pytest
import torch

from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import encode_tensor
from tests.support.mistakes import Mistake
from tests.support.mistakes_in_form import IN_FORM
from tests.support.mistakes_in_values import IN_VALUES
from tests.support.requests import (
    GOLDEN,
    METHODS,
    TIMEOUT,
    Method,
    Stub,
    by_call,
    evaluation,
    f32,
    i64,
    is_golden,
    item_status,
    trailing,
)

TABLE = (*IN_VALUES, *IN_FORM)

pytestmark = pytest.mark.usefixtures("_unharmed")


@pytest.fixture
def _unharmed(stub: Stub) -> None:
    """After each test (before the next one), torch's own answer still comes."""
    assert is_golden(by_call(stub, GOLDEN).result)


@pytest.fixture(params=list(METHODS))
def method(request: pytest.FixtureRequest) -> Method:
    """Each method."""
    return METHODS[request.param]


@pytest.mark.parametrize("wrong", TABLE, ids=[each.what for each in TABLE])
def test_a_mistake_is_refused_precisely(stub: Stub, method: Method, wrong: Mistake) -> None:
    """The code, the reason, the exact fields and a helpful description, by every method."""
    error = method(stub, wrong.item).error
    assert (error.code, error.reason) == (wrong.code.value[0], wrong.reason)
    assert [each.field for each in error.violations] == [field for field, _ in wrong.found]
    for violation, (_, said) in zip(error.violations, wrong.found, strict=True):
        assert said in violation.description
    if wrong.reason == "INVALID_EVALUATION":
        assert error.message.startswith(f"{wrong.found[0][0]}: ")
    assert wrong.says in error.message
    assert is_golden(by_call(stub, GOLDEN).result)


def test_the_table_names_every_mistake_once() -> None:
    """No two rows of the table have the same name."""
    assert len({each.what for each in TABLE}) == len(TABLE)


def test_all_mistakes_are_told_at_once(stub: Stub, method: Method) -> None:
    """Eight mistakes in one evaluation come back as eight violations, in a stable order."""
    item = evaluation(
        "cross_entropy",
        {"input": f32([0.1, 0.2, 0.3]), "target": i64(3), "wait": f32(1)},
        {"label_smoothing": 2.0, "smoothing": 0.1},
        gradients_for=["target"],
        normalizer=-1.0,
        sample_weight=f32(1, 1),
        engine=7,
    )
    error = method(stub, item).error
    assert [each.field for each in error.violations] == [
        'inputs["wait"]',
        'options["smoothing"]',
        'options["label_smoothing"]',
        "engine",
        "normalizer",
        "gradients_for[0]",
        'inputs["target"]',
        "sample_weight.shape",
    ]


def test_a_long_list_of_mistakes_is_cut(stub: Stub, method: Method) -> None:
    """Of 40 violations 15 are sent, and a last one counts the rest."""
    item = evaluation("sigmoid", {"input": f32(1)})
    for number in range(40):
        item.options[f"option{number:02}"].bool_value = True
    error = method(stub, item).error
    assert [each.field for each in error.violations] == [
        *(f'options["option{number:02}"]' for number in range(15)),
        "...",
    ]
    assert error.violations[-1].description == "and 25 more violations"
    assert len(error.message) <= 300


@pytest.mark.parametrize("letter", ["x", "\N{SNOWMAN}", "\N{GRINNING FACE}", "\n", "\x00"])
def test_long_names_are_cut(stub: Stub, method: Method, letter: str) -> None:
    """A name of 1000 letters is repeated in part; 16 of them still travel with the answer."""
    item = evaluation("sigmoid", {"input": f32(1)})
    for number in range(16):
        item.options[f"{number:02}" + letter * 1000].bool_value = True
    error = method(stub, item).error
    assert error.code == 3
    assert error.violations[0].field.startswith(f'options["00{letter * 8}')
    assert all(len(each.field) < 100 for each in error.violations)


def test_the_worst_refusal_fits_into_metadata(stub: Stub) -> None:
    """The metadata of a refused call stays below 8 KiB, above which gRPC may drop it."""
    name = "\N{GRINNING FACE}" * 64
    item = evaluation("cross_entropy", {"input": f32(1), "target": i64(1)})
    for number in range(30):
        item.inputs[f"{name}{number}"].SetInParent()
        item.options[f"{name}{number}"].string_value = name
        item.gradients_for.append(f"{name}{number}")
    request = loss_service_pb2.EvaluateRequest(evaluation=item)
    with pytest.raises(grpc.RpcError) as refused:
        stub.Evaluate(request, timeout=TIMEOUT)
    assert item_status(refused.value).violations[-1].field == "..."
    sizes = {key: float(len(value)) for key, value in trailing(refused.value).items()}
    sizes["grpc-status-details-bin"] *= 4 / 3  # base64
    sizes["grpc-message"] = len(quote(str(refused.value.details())))
    assert sum(len(key) + size + 32 for key, size in sizes.items()) < 7500


def test_a_flood_of_entries_is_refused_at_once(stub: Stub, method: Method) -> None:
    """Very many names cost the server one look at their number."""
    names = evaluation("sigmoid", {"input": f32(1)}, gradients_for=["input"] * 5_000)
    options = evaluation("sigmoid", {"input": f32(1)})
    for number in range(500):
        options.options[str(number)].bool_value = True
    for item, field in ((names, "gradients_for"), (options, "options")):
        error = method(stub, item).error
        assert [each.field for each in error.violations] == [field]
        assert "at most" in error.violations[0].description


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.0, 1e-45])
def test_strange_numbers_are_data(stub: Stub, method: Method, value: float) -> None:
    """NaN, infinities, -0 and subnormals are computed with, as torch does, bit for bit."""
    logits = f32([0.5, value, 1.5], [0.1, 0.2, 0.3])
    item = evaluation(
        "cross_entropy",
        {"input": logits, "target": i64(0, 1)},
        reduction=evaluation_pb2.REDUCTION_NONE,
        gradients_for=["input"],
        grad_output=f32(1, 1),
        engine=evaluation_pb2.ENGINE_AUTOGRAD,
    )
    result = method(stub, item).result
    leaf = torch.from_numpy(logits.copy()).requires_grad_()
    target = torch.tensor([0, 1])
    values = torch.nn.functional.cross_entropy(leaf, target, reduction="none")
    torch.autograd.backward(values, torch.ones(2))
    assert result.loss == encode_tensor(values.detach().numpy())
    assert leaf.grad is not None
    assert result.gradients["input"] == encode_tensor(leaf.grad.numpy())


def test_an_ignored_index_is_not_wrapped_to_the_targets_type(stub: Stub, method: Method) -> None:
    """-100 is 156 modulo 256, and yet a uint8 target of 156 is a class like any other."""
    logits = np.zeros((2, 200), np.float32)
    target = np.array([156, 1], np.uint8)
    result = method(stub, evaluation("cross_entropy", {"input": logits, "target": target})).result
    assert (result.count, result.mean_denominator) == (2, 2.0)


class _Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_just_bytes(stub: Stub, method: Method, tmp_path: Path) -> None:
    """A pickle that would run code, sent as data, is computed with like any other bytes."""
    trace = tmp_path / "trace"
    data = np.frombuffer(pickle.dumps(_Bomb(trace)), np.uint8)
    result = method(stub, evaluation("sigmoid", {"input": data})).result
    expected = torch.sigmoid(torch.from_numpy(data.copy()).float())
    assert result.loss == encode_tensor(expected.numpy())
    assert not trace.exists()
    pickle.loads(data.tobytes())  # noqa: S301 (shows that the bytes would have acted)
    assert trace.is_dir()
