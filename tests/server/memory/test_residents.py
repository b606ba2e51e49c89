"""Resident tensors over gRPC: storing, naming, deleting, and all refusals."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest

from losswire.v1 import loss_service_pb2, tensor_pb2, tensor_service_pb2
from tests.support import resident
from tests.support.harness import Child
from tests.support.requests import (
    METHODS,
    Method,
    by_call,
    essence,
    evaluation,
    f32,
    i64,
    item_status,
    trailing,
)
from tests.support.requests import Stub as LossStub
from tests.support.resident import Part, Stub, header, identity, named, noise

_QUOTA = 2 << 20
_KIB = 256
"""The float32 numbers in a KiB."""

_F32 = tensor_pb2.DATA_TYPE_FLOAT32
_BOOL = tensor_pb2.DATA_TYPE_BOOL
Codes = grpc.StatusCode


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """A connection to a server with a quota of 2 MiB."""
    log = tmp_path_factory.mktemp("residents") / "log"
    arguments = ("--memory-budget-mib", "64", "--resident-quota-mib", "2")
    with Child(log, *arguments) as child, child.channel() as channel:
        yield channel


@pytest.fixture(scope="module")
def tensors(channel: grpc.Channel) -> Stub:
    """Its tensors."""
    return Stub(channel)


@pytest.fixture(scope="module")
def losses(channel: grpc.Channel) -> LossStub:
    """Its losses."""
    return LossStub(channel)


KEPT: dict[str, Any] = {
    "a scalar": np.float64(1.5),
    "no elements": np.zeros((3, 0, 2), np.int16),
    "float32": noise(1, 5, 7),
    "bfloat16": noise(2, 8).astype(ml_dtypes.bfloat16),
    "bool": np.array([True, False, True]),
    "int64": np.arange(-5, 5),
    "all of the quota": noise(3, 8, _KIB * 256),
    "the longest rank": np.ones((1,) * 8, np.uint8),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_is_put_can_be_asked_for_until_it_is_forgotten(tensors: Stub, what: str) -> None:
    """The id is the SHA-256 of the documented form; putting again is free of effect."""
    array = np.asarray(KEPT[what])
    assert not resident.stat(tensors, array).present
    first, second = resident.put(tensors, array), resident.put(tensors, array, 100_000)
    assert first.id.sha256 == second.id.sha256 == identity(array)
    assert (first.existed, second.existed) == (False, True)
    found = resident.stat(tensors, array)
    assert (found.present, found.size_bytes) == (True, array.nbytes)
    assert first.size_bytes == second.size_bytes == array.nbytes
    assert tuple(found.shape) == array.shape
    assert found.data_type == named(array).data_type
    assert resident.delete(tensors, array)
    assert not resident.delete(tensors, array)
    assert resident.stat(tensors, array) == tensor_service_pb2.StatTensorResponse()


def test_dtype_and_shape_are_part_of_the_identity(tensors: Stub) -> None:
    """The same bytes in another form are another tensor."""
    arrays = [np.zeros(8, np.float32), np.zeros((2, 4), np.float32), np.zeros(8, np.int32)]
    assert len({resident.put(tensors, array).id.sha256 for array in arrays}) == 3
    assert [resident.stat(tensors, array).present for array in arrays] == [True] * 3


def _lies(*shape: int, data: bytes = b"") -> list[Part]:
    return [header(_F32, *shape), Part(data=data)]


MALFORMED: tuple[tuple[str, list[Part], Codes, str], ...] = (
    ("nothing", [], Codes.INVALID_ARGUMENT, "header: is missing"),
    ("no header", [Part(data=b"1234")], Codes.INVALID_ARGUMENT, "header: is missing"),
    ("an empty part first", [Part()], Codes.INVALID_ARGUMENT, "header: is missing"),
    (
        "two headers",
        [header(_F32, 1), header(_F32, 1)],
        Codes.INVALID_ARGUMENT,
        "header: came again",
    ),
    ("an empty part", [header(_F32, 1), Part()], Codes.INVALID_ARGUMENT, "must be set"),
    ("no data type", [header(0, 1)], Codes.INVALID_ARGUMENT, "header.data_type: is not set"),
    ("an unknown data type", [header(77, 1)], Codes.INVALID_ARGUMENT, "header.data_type: 77"),
    ("a negative axis", _lies(2, -1), Codes.INVALID_ARGUMENT, "header.shape[1]: -1 is not in"),
    ("too many axes", _lies(*[1] * 9), Codes.INVALID_ARGUMENT, "header.shape: has 9 axes"),
    ("an overflow", _lies(*[2**31 - 1] * 3), Codes.INVALID_ARGUMENT, "has too many elements"),
    ("2^60 bytes", _lies(2**29, 2**29), Codes.RESOURCE_EXHAUSTED, "quota for resident tensors"),
    ("one number too many", _lies(_QUOTA // 4 + 1), Codes.RESOURCE_EXHAUSTED, f"is {_QUOTA}"),
    ("cut short", _lies(2, data=b"1234"), Codes.INVALID_ARGUMENT, "data: has 4 bytes; 2 of"),
    ("no data", [header(_F32, 3)], Codes.INVALID_ARGUMENT, "data: has 0 bytes"),
    ("too long", _lies(1, data=b"12345678"), Codes.INVALID_ARGUMENT, "data: has more than 4"),
    (
        "a bool of 2",
        [header(_BOOL, 2), Part(data=b"\1\2")],
        Codes.INVALID_ARGUMENT,
        "a bool is one byte",
    ),
    (
        "crumbs",
        [header(_F32, 1000), *[Part(data=b"1")] * 100],
        Codes.INVALID_ARGUMENT,
        "too many parts",
    ),
    (
        "nothing in many parts",
        [header(_F32, 0), *[Part(data=b"")] * 100],
        Codes.INVALID_ARGUMENT,
        "too many parts",
    ),
)


@pytest.mark.parametrize(
    ("sent", "code", "says"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED]
)
def test_malformed_uploads_are_refused(
    tensors: Stub, sent: list[Part], code: grpc.StatusCode, says: str
) -> None:
    """Each is refused for good, with a reason and the path of what is wrong."""
    with pytest.raises(grpc.RpcError) as refused:
        resident.put_parts(tensors, sent)
    status = item_status(refused.value)
    assert (refused.value.code(), says in status.message) == (code, True), status.message
    if code is Codes.INVALID_ARGUMENT:
        assert status.reason == "MALFORMED_TENSOR"
        assert status.violations
    else:
        assert status.reason == "OVER_LIMIT"
        assert trailing(refused.value)["grpc-retry-pushback-ms"] == "-1"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_ids_have_the_length_of_a_hash(tensors: Stub, losses: LossStub, length: int) -> None:
    """Another length is a mistake, not a tensor that is missing."""
    wrong = tensor_pb2.TensorId(sha256=bytes(length))
    calls: list[Callable[[], Any]] = [
        lambda: tensors.StatTensor(tensor_service_pb2.StatTensorRequest(id=wrong)),
        lambda: tensors.DeleteTensor(tensor_service_pb2.DeleteTensorRequest(id=wrong)),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as refused:
            call()
        status = item_status(refused.value)
        assert (status.code, status.reason) == (3, "MALFORMED_TENSOR")
        assert status.violations[0].field == "id.sha256"
    item = evaluation("sigmoid", {"input": named(f32(1), bytes(length))})
    status = by_call(losses, item).error
    assert (status.code, status.violations[0].field) == (3, 'inputs["input"].resident.sha256')


def test_the_least_recently_used_makes_room(tensors: Stub, losses: LossStub) -> None:
    """Putting again and evaluating count as uses, StatTensor does not."""
    a, b, c, d, e = (noise(seed, 600 * _KIB) for seed in range(10, 15))
    for array in (a, b, c):
        resident.put(tensors, array)
    resident.put(tensors, a)
    assert by_call(losses, evaluation("sigmoid", {"input": named(b)})).HasField("result")
    assert resident.stat(tensors, c).present
    resident.put(tensors, d)
    assert [resident.stat(tensors, each).present for each in (a, b, c, d)] == [
        True,
        True,
        False,
        True,
    ]
    resident.put(tensors, e)
    assert [resident.stat(tensors, each).present for each in (a, b, d, e)] == [
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_all_that_is_missing_is_named_at_once(
    tensors: Stub, losses: LossStub, method: Method
) -> None:
    """By every method: FAILED_PRECONDITION, with the path of each, and not of what is there."""
    logits, weight = noise(20, 4, 3), noise(21, 4)
    resident.put(tensors, i64(0, 1, 2, 0))
    item = evaluation(
        "cross_entropy",
        {"input": named(logits), "target": named(i64(0, 1, 2, 0))},
        sample_weight=named(weight),
    )
    error = method(losses, item).error
    assert (error.code, error.reason) == (9, "MISSING_RESIDENT_TENSOR")
    assert [(each.field, each.description) for each in error.violations] == [
        ('inputs["input"].resident', f"this server does not hold {identity(logits).hex()}"),
        ("sample_weight.resident", f"this server does not hold {identity(weight).hex()}"),
    ]


def test_mistakes_of_form_come_before_what_is_missing(losses: LossStub) -> None:
    """Sending a tensor would not help an evaluation that is wrong anyway."""
    broken = tensor_pb2.Tensor(data_type=_F32, shape=[2], data=b"123")
    item = evaluation("mse_loss", {"input": named(noise(22, 2)), "target": broken})
    error = by_call(losses, item).error
    assert (error.code, error.reason) == (3, "INVALID_EVALUATION")
    assert [each.field for each in error.violations] == ['inputs["target"].data']


def test_the_declared_form_must_be_the_stored_one(tensors: Stub, losses: LossStub) -> None:
    """Data type and shape in the evaluation are those that were put."""
    array = noise(23, 2, 3)
    resident.put(tensors, array)
    declared = named(array)
    declared.data_type = tensor_pb2.DATA_TYPE_INT32
    del declared.shape[:]
    declared.shape.extend([3, 2])
    error = by_call(losses, evaluation("sigmoid", {"input": declared})).error
    assert [(each.field, each.description) for each in error.violations] == [
        ('inputs["input"].data_type', "is int32; the resident tensor is float32"),
        ('inputs["input"].shape', "is [3, 2]; the resident tensor is [2, 3]"),
    ]


def test_values_are_judged_in_every_evaluation(tensors: Stub, losses: LossStub) -> None:
    """A target that fits 3 classes is refused with 2, though it is stored."""
    target = i64(0, 2, 1)
    resident.put(tensors, target)

    def ask(classes: int) -> Any:  # noqa: ANN401 (an outcome)
        inputs: dict[str, Any] = {"input": noise(24, 3, classes), "target": named(target)}
        return by_call(losses, evaluation("cross_entropy", inputs))

    assert ask(3).HasField("result")
    assert "class index 2 at [1] is not in [0, 2)" in ask(2).error.message


DTYPES = ["float32", "float64", "float16", "bfloat16"]
_EVALUATIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "cross_entropy": lambda t: {
        "input": t(noise(30, 300, 500)),
        "target": np.arange(300),
        "weight": t(np.abs(noise(31, 500))),
    },
    "mse_loss": lambda t: {"input": t(noise(32, 40, 9)), "target": t(noise(33, 40, 9))},
    "kl_div": lambda t: {
        "input": t(-np.abs(noise(34, 6, 5))),
        "target": t(np.abs(noise(35, 6, 5))),
    },
    "linear_cross_entropy": lambda t: {
        "input": t(noise(36, 16, 8)),
        "linear_weight": t(noise(37, 20, 8)),
        "target": np.arange(16),
    },
}


@pytest.mark.parametrize("engine", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", _EVALUATIONS)
def test_results_are_those_of_tensors_sent_along(
    tensors: Stub, losses: LossStub, loss: str, dtype: str, engine: int
) -> None:
    """Loss, sums and gradients are the same bits, with every tensor resident."""
    inputs = _EVALUATIONS[loss](lambda array: array.astype(np.dtype(dtype)))
    first = next(iter(inputs))
    wanted = ["input", "linear_weight"] if "linear_weight" in inputs else ["input"]
    weight = np.abs(noise(38, len(inputs[first])))

    def ask(read: Callable[[Any], Any]) -> Any:  # noqa: ANN401 (a result)
        outcome = by_call(
            losses,
            evaluation(
                loss,
                {name: read(array) for name, array in inputs.items()},
                gradients_for=wanted,
                sample_weight=read(weight),
                grad_output=read(f32(0.5)[0]),
                engine=engine,
            ),
        )
        assert outcome.HasField("result"), outcome.error
        return essence(outcome.result)

    for array in (*inputs.values(), weight, f32(0.5)[0]):
        resident.put(tensors, array)
    assert ask(named) == ask(lambda array: array)


def test_the_server_tells_its_quota(losses: LossStub) -> None:
    """GetServerInfo says that tensors are kept, and how many bytes of them."""
    info = losses.GetServerInfo(loss_service_pb2.GetServerInfoRequest())
    assert info.limits.resident_quota_bytes == _QUOTA
    assert info.transports.resident_tensors


def test_a_server_without_quota_keeps_nothing(tmp_path: Path) -> None:
    """Putting and naming are UNIMPLEMENTED; StatTensor and DeleteTensor find nothing."""
    with Child(tmp_path / "log", "--resident-quota-mib", "0") as child, child.channel() as channel:
        tensors, losses = Stub(channel), LossStub(channel)
        info = losses.GetServerInfo(loss_service_pb2.GetServerInfoRequest())
        assert (info.limits.resident_quota_bytes, info.transports.resident_tensors) == (0, False)
        with pytest.raises(grpc.RpcError) as refused:
            resident.put(tensors, noise(40, 2))
        error = by_call(losses, evaluation("sigmoid", {"input": named(noise(40, 2))})).error
        for status in (item_status(refused.value), error):
            assert (status.code, status.reason) == (12, "NOT_SERVED")
            assert status.message == "this server keeps no resident tensors (its quota is 0)"
        assert not resident.stat(tensors, noise(40, 2)).present
        assert not resident.delete(tensors, noise(40, 2))


def test_by_default_the_quota_is_a_quarter_of_the_budget(tmp_path: Path) -> None:
    """Also when the budget is given."""
    with (
        Child(tmp_path / "log", "--memory-budget-mib", "12") as child,
        child.channel() as channel,
    ):
        info = LossStub(channel).GetServerInfo(loss_service_pb2.GetServerInfoRequest())
    assert info.limits.resident_quota_bytes == 3 << 20
