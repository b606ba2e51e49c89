"""Inputs that cannot stream, and wrong sequences of parts, are refused with their path."""

from collections.abc import Iterator, Mapping, Sequence

import grpc
import numpy as np
import pytest

from losswire.v1 import evaluation_pb2
from tests.support.chunks import TIMEOUT, Request, cuts_of, header_of, parts_of
from tests.support.requests import (
    GOLDEN,
    Stub,
    by_call,
    evaluation,
    f32,
    i64,
    is_golden,
    item_status,
)

Evaluation = evaluation_pb2.Evaluation
NONE = evaluation_pb2.REDUCTION_NONE
_LOGITS = np.random.default_rng(11).standard_normal((30, 300)).astype(np.float32)


_PAIR = {"input": _LOGITS[:6], "target": _LOGITS[6:12]}
_ROWS = {"input": _LOGITS[:6], "target": i64(0, 1, 2, 3, 4, 5)}
_CTC = {
    "log_probs": -np.abs(_LOGITS).reshape(5, 6, 300),
    "targets": np.ones((6, 2), np.int64),
    "input_lengths": np.full(6, 5),
    "target_lengths": np.full(6, 2),
}
_Wrong = tuple[Evaluation, Sequence[str], Sequence[tuple[str, str]]]
_REFUSED: Mapping[str, _Wrong] = {
    "rows along another axis": (
        evaluation("ctc_loss", _CTC),
        ["log_probs"],
        [("streamed_inputs", "cannot be cut into rows along its first axis; use Evaluate or")],
    ),
    "an activation": (
        evaluation("softmax", {"input": _LOGITS}, {"dim": 0}),
        ["input"],
        [("streamed_inputs", "is an activation: it has nothing to add up; use Evaluate or")],
    ),
    "one row": (
        evaluation("cross_entropy", {"input": _LOGITS[0], "target": np.int64(1)}),
        ["input"],
        [("streamed_inputs", "of this shape has one value and no rows; use Evaluate or")],
    ),
    "shared by all rows": (
        evaluation("cross_entropy", {**_ROWS, "weight": _LOGITS[0]}),
        ["input", "weight"],
        [("streamed_inputs[1]", "all rows share weight: send it in the header")],
    ),
    "nothing streams": (
        evaluation("mse_loss", _PAIR),
        [],
        [("streamed_inputs", "names no input; to send all in one, use Evaluate or")],
    ),
    "unknown and twice": (
        evaluation("mse_loss", _PAIR),
        ["weight", "input", "input"],
        [("streamed_inputs[0]", "is not among the inputs"), ("streamed_inputs[2]", "named twice")],
    ),
    "rows without bytes": (
        evaluation("mse_loss", {"input": _LOGITS[:6, :0], "target": _LOGITS[:6, :0]}),
        ["input"],
        [("streamed_inputs", "a row has no bytes; use Evaluate or")],
    ),
    "denominator streams": (
        evaluation("mse_loss", {**_PAIR, "weight": _LOGITS[:6]}, gradients_for=["input"]),
        ["input", "weight"],
        [("normalizer", "its denominator follows from weight, which streams; send it in the hea")],
    ),
    "denominator is differentiated": (
        evaluation("mse_loss", {**_PAIR, "weight": _LOGITS[:6]}, gradients_for=["input", "weight"]),
        ["input"],
        [("gradients_for[1]", "the mean's denominator depends on weight, and the mean that")],
    ),
    "values larger than a message": (
        evaluation(
            "mse_loss",
            {"input": np.zeros((600, 500), np.float32), "target": np.zeros((600, 500), np.float32)},
            reduction=NONE,
        ),
        ["input", "target"],
        [("reduction", "is none, and the values take 1200000 bytes of the 1048576 that come in")],
    ),
    "an evaluation that Evaluate refuses": (
        evaluation(
            "cross_entropy",
            {**_ROWS, "target": i64(0, 1)},
            {"smoothing": 1.0},
            gradients_for=["target"],
        ),
        ["input"],
        [
            ('inputs["target"].shape', "is [2]; expected [6]"),
            ('options["smoothing"]', "has no such option"),
            ("gradients_for[0]", "target holds integers, which have no gradient"),
        ],
    ),
    "a value in the header": (
        evaluation("cross_entropy", {**_ROWS, "target": i64(0, 1, 2, 3, 4, 300)}),
        ["input"],
        [('inputs["target"]', "class index 300 at [5] is not in [0, 300)")],
    ),
    "a value in a part": (
        evaluation("cross_entropy", {**_ROWS, "target": i64(0, 1, 2, 3, 4, 300)}),
        ["input", "target"],
        [('inputs["target"]', "class index 300 at [5] is not in [0, 300)")],
    ),
    "a probability in a part": (
        evaluation(
            "binary_cross_entropy",
            {"input": f32([0.5], [0.5], [2.0]), "target": f32([0], [0], [1])},
        ),
        ["input", "target"],
        [('inputs["input"]', "2.0 at [2, 0] is not in [0, 1]")],
    ),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_what_cannot_stream_is_told_with_its_path(chunked_stub: Stub, case: str) -> None:
    """INVALID_ARGUMENT, with every violation and what to do instead; the server continues."""
    item, streamed, expected = _REFUSED[case]
    _assert_refused(chunked_stub, parts_of(item, streamed, cuts_of(6, [4])), expected)


def _assert_refused(
    stub: Stub, requests: Iterator[Request], expected: Sequence[tuple[str, str]]
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.EvaluateChunked(requests, timeout=TIMEOUT))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = item_status(refused.value)
    assert status.reason == "INVALID_EVALUATION"
    assert [each.field for each in status.violations] == [field for field, _ in expected]
    for violation, (_, text) in zip(status.violations, expected, strict=True):
        assert text in violation.description
    assert is_golden(by_call(stub, GOLDEN).result)


_GOOD = evaluation("mse_loss", _PAIR, gradients_for=["input"])
_ROW = _LOGITS[:1].tobytes()
_BAD_PARTS: Mapping[str, tuple[list[Request], tuple[str, str]]] = {
    "nothing": ([], ("header", "must be the first part, and is missing")),
    "rows first": ([Request(rows=_ROW)], ("header", "must be the first part")),
    "an empty part first": ([Request()], ("header", "must be the first part")),
    "two headers": (
        [header_of(_GOOD, ["input"]), header_of(_GOOD, ["input"])],
        ("header", "comes only once, as the first part"),
    ),
    "an unset part": ([header_of(_GOOD, ["input"]), Request()], ("part", "is not set")),
    "a broken row": (
        [header_of(_GOOD, ["input"]), Request(rows=_ROW + b"\0")],
        ("rows", "has 1201 bytes; a row of all streamed inputs takes 1200"),
    ),
    "too many rows": (
        [header_of(_GOOD, ["input"]), Request(rows=_ROW * 4), Request(rows=_ROW * 3)],
        ("rows", "holds rows up to 7; the streamed inputs have 6"),
    ),
    "too few rows": (
        [header_of(_GOOD, ["input"]), Request(rows=_ROW * 5)],
        ("rows", "end after 5 of the 6 rows of the streamed inputs"),
    ),
}


@pytest.mark.parametrize("case", _BAD_PARTS)
def test_parts_that_do_not_add_up(chunked_stub: Stub, case: str) -> None:
    """A wrong sequence of parts ends the call with the path of the part."""
    parts, expected = _BAD_PARTS[case]
    _assert_refused(chunked_stub, iter(parts), [expected])


def test_a_streamed_input_has_no_data(chunked_stub: Stub) -> None:
    """Data that would be ignored is refused, and so is a source that is not set."""
    request = header_of(_GOOD, ["input"])
    request.header.evaluation.inputs["input"].data = _ROW
    _assert_refused(
        chunked_stub, iter([request]), [('inputs["input"].data', "must be empty: this input")]
    )
    request.header.evaluation.inputs["input"].ClearField("source")
    _assert_refused(
        chunked_stub, iter([request]), [('inputs["input"]', "has no data; that of a streamed")]
    )


def test_a_shape_takes_no_memory(chunked_stub: Stub) -> None:
    """A header may announce more than there is memory, as long as no row of it arrives."""
    request = header_of(_GOOD, ["input", "target"])
    for name in ("input", "target"):
        request.header.evaluation.inputs[name].shape[0] = 2**31 - 1
    _assert_refused(chunked_stub, iter([request]), [("rows", "end after 0 of the 2147483647 rows")])
    request.header.evaluation.reduction = NONE
    request.header.evaluation.ClearField("gradients_for")
    _assert_refused(chunked_stub, iter([request]), [("reduction", "is none, and the values take")])
