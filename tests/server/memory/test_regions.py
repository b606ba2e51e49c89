"""Tensors in shared memory: the same results, and every offset is checked."""

import threading
from collections.abc import Callable

import grpc
import numpy as np
import pytest

from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2
from losswire.wire import decode_tensor, encode_tensor
from tests.support.mutations import CORPUS
from tests.support.regions import SMALL_REGION, Array, Held, region, relocate
from tests.support.requests import (
    GOLDEN,
    METHODS,
    TIMEOUT,
    Method,
    Stub,
    by_call,
    essence,
    evaluation,
    f32,
    i64,
    is_golden,
    item_status,
)


def _large() -> evaluation_pb2.Evaluation:
    """Return an evaluation that takes a closed form."""
    draw = np.random.default_rng(11)
    return evaluation(
        "cross_entropy",
        {
            "input": draw.standard_normal((300, 500)).astype("f4"),
            "target": draw.integers(0, 500, 300),
        },
        gradients_for=["input"],
        sample_weight=draw.random(300),
    )


def _converted() -> evaluation_pb2.Evaluation:
    """Return one whose gradient has another type than the computation."""
    item = _large()
    item.gradient_data_type = tensor_pb2.DATA_TYPE_BFLOAT16
    return item


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("item", [*CORPUS, _large(), _converted()], ids=lambda each: each.loss)
def test_results_have_the_same_bits(
    stub: Stub, channel: grpc.Channel, item: evaluation_pb2.Evaluation, method: Method
) -> None:
    """All tensors in a region and all gradients into it have the bits of those that are sent."""
    with region(channel, 4 << 20) as held:
        moved, gradients = relocate(item, held)
        found, expected = essence(method(stub, moved).result), essence(by_call(stub, item).result)
        assert expected.HasField("receipt")
        for name, array in gradients.items():
            assert found.gradients[name].region == moved.gradient_destinations[name]
            found.gradients[name].CopyFrom(encode_tensor(array))
        assert found == expected


def _relocatable() -> evaluation_pb2.Evaluation:
    """Return an evaluation that is prepared after its first time."""
    item = _large()
    item.ClearField("sample_weight")
    return item


def _with_logits_in(
    held: Held, item: evaluation_pb2.Evaluation
) -> tuple[evaluation_pb2.Evaluation, Array, Array]:
    """Move logits and gradient of an evaluation into a region; the classes are sent."""
    logits, gradient = held.array((300, 500)), held.array((300, 500))
    logits[...] = decode_tensor(item.inputs["input"])
    moved = evaluation_pb2.Evaluation()
    moved.CopyFrom(item)
    moved.inputs["input"].CopyFrom(held.tensor(logits))
    moved.gradient_destinations["input"].CopyFrom(held.place(gradient))
    return moved, logits, gradient


def test_a_known_form_reads_what_lies_there_now(stub: Stub, channel: grpc.Channel) -> None:
    """Evaluated repeatedly, the same message reads the current contents of its region."""
    item = _relocatable()
    with region(channel, 4 << 20) as held:
        moved, logits, gradient = _with_logits_in(held, item)
        for turn in range(4):
            numbers = np.random.default_rng(turn).standard_normal((300, 500)).astype("f4")
            item.inputs["input"].CopyFrom(encode_tensor(numbers))
            logits[...], gradient[...] = numbers, 7
            found, expected = (by_call(stub, each).result for each in (moved, item))
            assert found.loss == expected.loss
            assert found.gradients["input"].region == moved.gradient_destinations["input"]
            assert encode_tensor(gradient) == expected.gradients["input"]


def test_a_known_form_does_not_outlive_its_region(stub: Stub, channel: grpc.Channel) -> None:
    """When the region is gone, the answer is that of an evaluation that was never prepared."""
    with region(channel, 4 << 20) as held:
        moved, _, _ = _with_logits_in(held, _relocatable())
        for _ in range(3):
            assert by_call(stub, moved).HasField("result")
    error = by_call(stub, moved).error
    assert (error.code, error.reason) == (9, "MISSING_REGION")
    assert 'inputs["input"].region' in [each.field for each in error.violations]


_OUTSIDE = "and the region has 65536"


_PLACES = {
    "one byte behind": (SMALL_REGION - 4, (2,), 9, "region.offset", _OUTSIDE),
    "at the end": (SMALL_REGION, (1,), 9, "region.offset", _OUTSIDE),
    "the largest offset": (2**64 - 4, (1,), 9, "region.offset", _OUTSIDE),
    "an offset that wraps": (2**64 - 8, (2, 2), 9, "region.offset", _OUTSIDE),
    "a negative number of 32 bits": (2**32 - 4, (1,), 9, "region.offset", _OUTSIDE),
    "a size that wraps": (0, (2**30, 2**30), 9, "region.offset", _OUTSIDE),
    "too many elements": (0, (2**31 - 1, 2**31 - 1, 2), 9, "shape", "has too many elements"),
    "a negative axis": (0, (-1,), 9, "shape[0]", "-1 is not in"),
    "misaligned": (2, (1,), 9, "region.offset", "is 2; it must be a multiple of the item size, 4"),
    "misaligned for its type": (4, (1,), 10, "region.offset", "a multiple of the item size, 8"),
    "no type": (0, (1,), 0, "data_type", "is not set"),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("case", _PLACES.values(), ids=_PLACES)
def test_places_outside_are_refused(
    stub: Stub, held: Held, case: tuple[int, tuple[int, ...], int, str, str], method: Method
) -> None:
    """An offset is inside of the region, or is refused with its path, for any numbers."""
    offset, shape, data_type, field, says = case
    wrong = held.at(offset, *shape, data_type=data_type)
    item = evaluation("mse_loss", {"input": wrong, "target": wrong}, sample_weight=wrong)
    error = method(stub, item).error
    assert (error.code, error.reason) == (3, "INVALID_EVALUATION")
    where = ('inputs["input"]', 'inputs["target"]', "sample_weight")
    assert [each.field for each in error.violations] == [f"{each}.{field}" for each in where]
    assert all(says in each.description for each in error.violations)


def test_violations_come_in_the_order_of_the_message(stub: Stub, held: Held) -> None:
    """Those of tensors in regions and of tensors that were sent are not set apart."""
    outside, short = held.at(SMALL_REGION, 1), encode_tensor(f32(1, 2))
    short.data = short.data[:4]
    item = evaluation("mse_loss", {"input": outside, "target": short}, sample_weight=outside)
    assert [each.field for each in by_call(stub, item).error.violations] == [
        'inputs["input"].region.offset',
        'inputs["target"].data',
        "sample_weight.region.offset",
    ]


def test_a_place_at_the_very_end_is_inside(stub: Stub, held: Held) -> None:
    """The last element, and nothing behind it, can be read; so can nothing at the end."""
    held.array((SMALL_REGION // 4,))[-1] = 3
    item = evaluation("mse_loss", {"input": held.at(SMALL_REGION - 4, 1), "target": f32(0)})
    assert by_call(stub, item).result.sum == 9
    nothing = held.at(SMALL_REGION, 0)
    item = evaluation("mse_loss", {"input": nothing, "target": nothing})
    assert by_call(stub, item).result.count == 0


def _unknown(field: str) -> evaluation_pb2.Evaluation:
    float32 = tensor_pb2.DATA_TYPE_FLOAT32
    wrong = tensor_pb2.Tensor(
        data_type=float32, shape=[2], region=tensor_pb2.Region(region_id=12345)
    )
    pair = {"input": f32(1, 2), "target": f32(3, 4)}
    if field == "inputs":
        return evaluation("mse_loss", {**pair, "input": wrong})
    item = evaluation("mse_loss", pair, gradients_for=["input"])
    if field == "gradient_destinations":
        item.gradient_destinations["input"].CopyFrom(wrong.region)
    else:
        getattr(item, field).CopyFrom(wrong)
    return item


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("inputs", 'inputs["input"].region'),
        ("grad_output", "grad_output.region"),
        ("sample_weight", "sample_weight.region"),
        ("gradient_destinations", 'gradient_destinations["input"]'),
    ],
)
def test_unknown_regions_have_a_reason_of_their_own(
    stub: Stub, field: str, path: str, method: Method
) -> None:
    """A missing region has a reason of its own, and its id is not repeated."""
    error = method(stub, _unknown(field)).error
    assert (error.code, error.reason) == (9, "MISSING_REGION")
    assert [each.field for each in error.violations] == [path]
    assert "12345" not in str(error)


_Spoil = Callable[[evaluation_pb2.Evaluation, Held], None]


def _onto_its_input(item: evaluation_pb2.Evaluation, _: Held) -> None:
    item.gradient_destinations["input"].CopyFrom(item.inputs["input"].region)


def _half_onto_another_input(item: evaluation_pb2.Evaluation, _: Held) -> None:
    item.gradient_destinations["input"].CopyFrom(item.inputs["target"].region)
    item.gradient_destinations["input"].offset += 4


def _onto_each_other(item: evaluation_pb2.Evaluation, _: Held) -> None:
    item.gradient_destinations["target"].CopyFrom(item.gradient_destinations["input"])


def _outside(item: evaluation_pb2.Evaluation, _: Held) -> None:
    item.gradient_destinations["input"].offset = SMALL_REGION - 4


def _askew(item: evaluation_pb2.Evaluation, _: Held) -> None:
    item.gradient_destinations["input"].offset += 2


def _unasked(item: evaluation_pb2.Evaluation, _: Held) -> None:
    item.gradients_for.remove("target")


def _too_large(item: evaluation_pb2.Evaluation, _: Held) -> None:
    item.gradient_destinations["target"].offset = SMALL_REGION - 8
    item.gradient_data_type = tensor_pb2.DATA_TYPE_FLOAT64


def _flood(item: evaluation_pb2.Evaluation, _: Held) -> None:
    for number in range(65):
        item.gradient_destinations[str(number)].offset = 0


_DESTINATIONS: dict[str, tuple[_Spoil, str, str]] = {
    "its input": (_onto_its_input, '["input"]', 'overlaps inputs["input"]'),
    "another input": (_half_onto_another_input, '["input"]', 'overlaps inputs["target"]'),
    "each other": (_onto_each_other, '["target"]', 'overlaps gradient_destinations["input"]'),
    "outside": (_outside, '["input"].offset', _OUTSIDE),
    "misaligned": (_askew, '["input"].offset', "a multiple of the item size, 4"),
    "not asked for": (_unasked, '["target"]', "is not among gradients_for"),
    "of the gradient's type": (_too_large, '["target"].offset', _OUTSIDE),
    "too many": (_flood, "", "has 67 entries; at most 64"),
}


@pytest.mark.parametrize("case", _DESTINATIONS.values(), ids=_DESTINATIONS)
def test_wrong_destinations_are_refused(
    stub: Stub, held: Held, case: tuple[_Spoil, str, str]
) -> None:
    """A gradient may not overlap a tensor of its evaluation, or end outside of the region."""
    spoil, path, says = case
    item = evaluation(
        "mse_loss",
        {"input": f32(1, 2, 3), "target": f32(4, 5, 6)},
        gradients_for=["input", "target"],
    )
    moved, gradients = relocate(item, held)
    for array in gradients.values():
        array[...] = 7
    before = bytes(held.memory)
    spoil(moved, held)
    error = by_call(stub, moved).error
    assert error.reason == "INVALID_EVALUATION"
    [violation] = error.violations
    assert violation.field == f"gradient_destinations{path}"
    assert says in violation.description
    assert bytes(held.memory) == before


def test_nothing_is_written_by_an_evaluation_that_is_wrong(stub: Stub, held: Held) -> None:
    """A class index out of range is found before the destination is written."""
    item = evaluation(
        "cross_entropy",
        {"input": np.ones((2, 3), "f4"), "target": i64(0, 3)},
        gradients_for=["input"],
    )
    moved, gradients = relocate(item, held)
    gradients["input"][...] = 7
    error = by_call(stub, moved).error
    assert [each.field for each in error.violations] == ['inputs["target"]']
    assert (gradients["input"] == 7).all()


def test_values_that_change_meanwhile_harm_nobody(stub: Stub, channel: grpc.Channel) -> None:
    """Classes that another thread changes all the time are refused, or were valid when copied."""
    rows = 1500
    stop = threading.Event()
    with region(channel) as held:
        moved, gradients = relocate(
            evaluation(
                "cross_entropy",
                {"input": np.zeros((rows, 50), "f4"), "target": np.zeros(rows, np.int64)},
                gradients_for=["input"],
            ),
            held,
        )
        target = np.frombuffer(held.memory, np.int64, rows, moved.inputs["target"].region.offset)

        def flip() -> None:
            while not stop.is_set():
                target[...] = 2**62
                target[...] = 49
                target[...] = -(2**62)
                target[...] = 0

        flipping = threading.Thread(target=flip)
        flipping.start()
        codes = set()
        try:
            for _ in range(1500):
                codes.add(by_call(stub, moved).error.code)
                assert np.isfinite(gradients["input"]).all()
        finally:
            stop.set()
            flipping.join()
    assert codes <= {0, 3}
    assert is_golden(by_call(stub, GOLDEN).result)


@pytest.mark.parametrize(
    ("loss", "name"), [("binary_cross_entropy", "input"), ("binary_cross_entropy", "target")]
)
def test_probabilities_are_checked_in_a_copy(stub: Stub, held: Held, loss: str, name: str) -> None:
    """Floating numbers with a rule are refused in a region as in a message."""
    inputs = {"input": f32(0.5, 0.5), "target": f32(0, 1)}
    inputs[name] = f32(0.5, 1.5)
    moved, _ = relocate(evaluation(loss, inputs), held)
    error = by_call(stub, moved).error
    assert [each.field for each in error.violations] == [f'inputs["{name}"]']


def test_a_bool_that_is_neither_is_refused(stub: Stub, held: Held) -> None:
    """A byte of 2 is no bool, in a region either."""
    held.memory[:3] = b"\x00\x01\x02"
    error = by_call(stub, evaluation("sigmoid", {"input": held.at(0, 3, data_type=1)})).error
    assert error.code == 3
    assert "0 or 1" in error.message


def test_one_small_message_cannot_copy_without_bound(stub: Stub, channel: grpc.Channel) -> None:
    """Copies of regions, made to be checked, count in the budget before they are made."""
    with region(channel, 32 << 20) as held:
        big = held.at(0, 4 << 20, data_type=6)
        item = evaluation("cross_entropy", {"input": np.zeros((4 << 20, 0), "f4"), "target": big})
        request = loss_service_pb2.EvaluateManyRequest(evaluations=[item] * 100)
        with pytest.raises(grpc.RpcError) as refused:
            stub.EvaluateMany(request, timeout=TIMEOUT)
        assert item_status(refused.value).reason == "OVER_LIMIT"


def _chunked(
    stub: Stub, header: loss_service_pb2.ChunkedHeader, rows: list[bytes]
) -> list[loss_service_pb2.EvaluateChunkedResponse]:
    parts = [loss_service_pb2.EvaluateChunkedRequest(header=header)]
    parts += [loss_service_pb2.EvaluateChunkedRequest(rows=each) for each in rows]
    return list(stub.EvaluateChunked(iter(parts), timeout=TIMEOUT))


def test_a_chunked_call_may_name_what_does_not_stream(stub: Stub, held: Held) -> None:
    """Targets in a region and streamed logits have the result of one message."""
    logits, classes = f32([0.1, 0.2], [0.3, 0.1], [0.9, 0.5]), i64(0, 1, 1)
    target = held.array((3,), np.int64)
    target[...] = classes
    item = evaluation("cross_entropy", {"input": logits, "target": held.tensor(target)})
    item.inputs["input"].data = b""
    header = loss_service_pb2.ChunkedHeader(evaluation=item, streamed_inputs=["input"])
    [answer] = _chunked(stub, header, [logits[:2].tobytes(), logits[2:].tobytes()])
    plain = by_call(stub, evaluation("cross_entropy", {"input": logits, "target": classes})).result
    assert answer.result.result.sum == pytest.approx(plain.sum, rel=1e-6)


@pytest.mark.parametrize("what", ["streamed", "destination"])
def test_what_streams_does_not_lie_in_a_region(stub: Stub, held: Held, what: str) -> None:
    """A streamed input cannot be in a region, and its gradient comes with the parts."""
    item = evaluation(
        "mse_loss", {"input": f32(1, 2), "target": f32(3, 4)}, gradients_for=["input"]
    )
    item.inputs["input"].data = b""
    if what == "streamed":
        item.inputs["input"].region.region_id = held.region_id
    else:
        item.gradient_destinations["input"].region_id = held.region_id
    header = loss_service_pb2.ChunkedHeader(evaluation=item, streamed_inputs=["input"])
    with pytest.raises(grpc.RpcError) as refused:
        _chunked(stub, header, [])
    status = item_status(refused.value)
    fields = {"streamed": 'inputs["input"].data', "destination": "gradient_destinations"}
    assert fields[what] in [each.field for each in status.violations]
