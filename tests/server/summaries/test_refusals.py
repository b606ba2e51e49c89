"""What SummarizeLosses refuses, with the path of the field."""

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from losswire.v1 import (
    evaluation_pb2,
    status_pb2,
    summary_pb2,
    tensor_pb2,
)
from tests.support.requests import Stub, f32, i64, item_status
from tests.support.summary_calls import Answer, Request, batch, column, header, summarize

_PAIR = {"input": np.ones((3, 2)), "target": np.zeros((3, 2))}
_CODES = i64(0, 1, 0)
_ONE = batch(_PAIR)
_INT64 = tensor_pb2.DATA_TYPE_INT64
_LONG = "x" * 200


def _refusal(stub: Stub, parts: Sequence[Request], code: grpc.StatusCode) -> status_pb2.Status:
    with pytest.raises(grpc.RpcError) as refused:
        summarize(stub, parts)
    assert refused.value.code() is code
    return item_status(refused.value)


def _paths(stub: Stub, parts: Sequence[Request]) -> list[str]:
    """Return the paths of the violations of a call that is INVALID_ARGUMENT."""
    found = _refusal(stub, parts, grpc.StatusCode.INVALID_ARGUMENT)
    assert found.reason == "INVALID_EVALUATION"
    return [each.field for each in found.violations]


def _fields(**fields: Any) -> Request:  # noqa: ANN401 (any field of the evaluation)
    return header("mse_loss", fields=fields)


def _named(*names: str, **inputs: Any) -> Request:  # noqa: ANN401 (arrays)
    return header("mse_loss", candidates=dict.fromkeys(names, inputs))


def _two(first: str, second: str) -> Request:
    request = _named("a", "b")
    request.header.candidates[0].name, request.header.candidates[1].name = first, second
    return request


_HEADERS: dict[str, tuple[Request, list[str]]] = {
    "sum": (_fields(reduction=evaluation_pb2.REDUCTION_SUM), ["header.evaluation.reduction"]),
    "none": (_fields(reduction=evaluation_pb2.REDUCTION_NONE), ["header.evaluation.reduction"]),
    "batchmean of a loss without": (
        _fields(reduction=evaluation_pb2.REDUCTION_BATCHMEAN),
        ["header.evaluation.reduction"],
    ),
    "unknown reduction": (_fields(reduction=77), ["header.evaluation.reduction"]),
    "gradients": (
        _fields(
            gradients_for=["input"],
            grad_output=f32(1),
            sample_weight=f32(1),
            normalizer=2.0,
            gradient_form=evaluation_pb2.GRADIENT_FORM_FACTORED,
            gradient_data_type=tensor_pb2.DATA_TYPE_FLOAT64,
            gradient_destinations={"input": tensor_pb2.Region()},
        ),
        [
            f"header.evaluation.{name}"
            for name in (
                "gradients_for",
                "grad_output",
                "sample_weight",
                "normalizer",
                "gradient_form",
                "gradient_data_type",
                "gradient_destinations",
            )
        ],
    ),
    "activation": (header("softmax"), ["header.evaluation.loss"]),
    "one candidate": (_named("a"), ["header.candidates"]),
    "nine candidates": (_named(*"abcdefghi"), ["header.candidates"]),
    "a candidate without a name": (_two("a", ""), ["header.candidates[1].name"]),
    "a long name": (_two(_LONG, "b"), ["header.candidates[0].name"]),
    "a name twice": (_two("a", "a"), ["header.candidates[1].name"]),
    "an input twice": (
        header("mse_loss", {"target": f32(1)}, candidates={"a": {}, "b": {"target": f32(1)}}),
        ['header.candidates[1].inputs["target"]'],
    ),
    "many tables": (header("mse_loss", tables=[[f"{i}"] for i in range(17)]), ["header.tables"]),
    "a table without columns": (
        header("mse_loss", tables=[["a"], []]),
        ["header.tables[1].columns"],
    ),
    "many columns": (
        header("mse_loss", tables=[[f"{i}" for i in range(17)]]),
        ["header.tables[0].columns"],
    ),
    "a column twice": (header("mse_loss", tables=[["a", "a"]]), ["header.tables[0].columns[1]"]),
    "names of columns": (
        header("mse_loss", tables=[["", _LONG]]),
        ["header.tables[0].columns[0]", "header.tables[0].columns[1]"],
    ),
    "a table twice": (
        header("mse_loss", tables=[["a", "b"], ["b", "a"]]),
        ["header.tables[1].columns"],
    ),
    "limits": (
        header(
            "mse_loss",
            max_slices=4097,
            max_open_clusters=-1,
            worst=1001,
            first_row=-1,
            report_every_batches=-1,
            slice_overflow=9,
            cluster_order=9,
            relative_accuracy=0.001,
            partition="ä" * 513,
        ),
        [
            f"header.{name}"
            for name in (
                "max_slices",
                "max_open_clusters",
                "worst",
                "first_row",
                "report_every_batches",
                "slice_overflow",
                "cluster_order",
                "relative_accuracy",
                "partition",
            )
        ],
    ),
    "accuracy": (header("mse_loss", relative_accuracy=float("nan")), ["header.relative_accuracy"]),
}


@pytest.mark.parametrize(("request_", "paths"), _HEADERS.values(), ids=_HEADERS)
def test_headers(stub: Stub, request_: Request, paths: list[str]) -> None:
    """All violations of a header come at once, before any batch is read."""
    assert _paths(stub, [request_, _ONE]) == paths


def test_an_unknown_loss(stub: Stub) -> None:
    """It is NOT_FOUND, with the nearest names."""
    found = _refusal(stub, [header("mse_los")], grpc.StatusCode.NOT_FOUND)
    assert "mse_loss" in found.message


_BATCHES: dict[str, tuple[Request, Request, list[str]]] = {
    "a missing input": (
        header("mse_loss"),
        batch({"input": f32(1)}),
        ['batches[1].inputs["target"]'],
    ),
    "an unknown input": (
        header("mse_loss"),
        batch({**_PAIR, "nope": f32(1)}),
        ['batches[1].inputs["nope"]'],
    ),
    "a wrong shape": (
        header("mse_loss"),
        batch({"input": f32(1), "target": f32(1, 2)}),
        ['batches[1].inputs["target"].shape'],
    ),
    "a shared input of a wrong shape": (
        header("cross_entropy", {"weight": f32(1, 2, 3)}),
        batch({"input": f32([1, 2]), "target": i64(0)}),
        ['header.evaluation.inputs["weight"].shape'],
    ),
    "an option": (
        header("mse_loss", options={"nope": 1}),
        _ONE,
        ['header.evaluation.options["nope"]'],
    ),
    "an input that the header has": (
        header("mse_loss", {"target": np.zeros((3, 2))}),
        _ONE,
        ['batches[1].inputs["target"]'],
    ),
    "candidates": (header("mse_loss"), batch(_PAIR, candidates=[{}]), ["batches[1].candidates"]),
    "an input of a candidate": (
        header("mse_loss", candidates={"a": {}, "b": {}}),
        batch(
            {"target": f32(1)},
            candidates=[{"input": f32(1)}, {"input": i64(1)}],
        ),
        ['batches[1].candidates[1].inputs["input"].data_type'],
    ),
    "an input of batch and candidate": (
        header("mse_loss", candidates={"a": {}, "b": {}}),
        batch(_PAIR, candidates=[{}, {"input": f32(1)}]),
        ['batches[1].candidates[1].inputs["input"]'],
    ),
    "rows of candidates": (
        header("mse_loss", candidates={"a": {}, "b": {}}),
        batch({}, candidates=[_PAIR, {"input": f32(1), "target": f32(1)}]),
        ["batches[1].candidates[1].inputs"],
    ),
    "weights": (
        header("mse_loss"),
        batch(_PAIR, sample_weight=f32(1, 2)),
        ["batches[1].sample_weight.shape"],
    ),
    "integer weights": (
        header("mse_loss"),
        batch(_PAIR, sample_weight=i64(1, 2, 3)),
        ["batches[1].sample_weight.data_type"],
    ),
    "negative weights": (
        header("mse_loss"),
        batch(_PAIR, sample_weight=f32(1, -1, 1)),
        ["batches[1].sample_weight"],
    ),
    "weights of NaN": (
        header("mse_loss"),
        batch(_PAIR, sample_weight=f32(1, 1, np.nan)),
        ["batches[1].sample_weight"],
    ),
    "infinite weights": (
        header("mse_loss"),
        batch(_PAIR, sample_weight=np.full((3, 2), np.inf)),
        ["batches[1].sample_weight"],
    ),
    "columns": (
        header("mse_loss", tables=[["a"]]),
        batch(_PAIR, columns={"b": column(_CODES)}),
        ['batches[1].columns["a"]', 'batches[1].columns["b"]'],
    ),
    "codes": (
        header("mse_loss", tables=[["a", "b", "c"]]),
        batch(
            _PAIR,
            columns={
                "a": column(f32(0, 1, 2)),
                "b": column(i64(0, 1)),
                "c": column(i64(0, 2, 1), "x", "y"),
            },
        ),
        [
            'batches[1].columns["a"].codes.data_type',
            'batches[1].columns["b"].codes.shape',
            'batches[1].columns["c"].codes',
        ],
    ),
    "negative codes": (
        header("mse_loss"),
        batch(_PAIR, ids=column(i64(0, -1, 1), "x", "y")),
        ["batches[1].ids.codes"],
    ),
    "codes without data": (
        header("mse_loss"),
        batch(_PAIR, ids=column(tensor_pb2.Tensor(data_type=_INT64, shape=[3]))),
        ["batches[1].ids.codes"],
    ),
    "labels": (
        header("mse_loss"),
        batch(_PAIR, ids=column(_CODES, *"wxyz"), clusters=column(_CODES, "x", "ä" * 513)),
        ["batches[1].clusters.labels[1]", "batches[1].ids.labels"],
    ),
}


def _first(one: Request) -> Request:
    """Return a batch that a header accepts."""
    if one.header.evaluation.loss == "cross_entropy":
        return batch({"input": np.ones((1, 3)), "target": i64(0)})
    names = [name for table in one.header.tables for name in table.columns]
    given = set(one.header.evaluation.inputs)
    inputs = {name: each for name, each in _PAIR.items() if name not in given}
    own: list[dict[str, Any]] = [{} for _ in one.header.candidates]
    return batch(inputs, candidates=own, columns={name: column(_CODES) for name in names})


@pytest.mark.parametrize(("one", "wrong", "paths"), _BATCHES.values(), ids=_BATCHES)
def test_batches(stub: Stub, one: Request, wrong: Request, paths: list[str]) -> None:
    """What is wrong with the second batch is named, also where it is in the header."""
    first = [] if "header" in paths[0] else [_first(one)]
    shifted = paths if first else [each.replace("batches[1]", "batches[0]") for each in paths]
    assert _paths(stub, [one, *first, wrong]) == shifted


def test_clusters_in_some_batches(stub: Stub) -> None:
    """They are in all batches or in none."""
    with_clusters = batch(_PAIR, clusters=column(_CODES))
    assert _paths(stub, [header("mse_loss"), _ONE, with_clusters]) == ["batches[1].clusters"]
    assert _paths(stub, [header("mse_loss"), with_clusters, _ONE]) == ["batches[1].clusters"]


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        ([], "header"),
        ([_ONE], "header"),
        ([header("mse_loss"), header("mse_loss")], "header"),
        ([header("mse_loss"), Request()], "part"),
    ],
    ids=["nothing", "no header", "two headers", "an empty part"],
)
def test_the_order_of_parts(stub: Stub, parts: list[Request], path: str) -> None:
    """First a header, then batches."""
    assert _paths(stub, parts) == [path]


def _summary(stub: Stub, **wanted: Any) -> summary_pb2.LossSummary:  # noqa: ANN401 (any field)
    return summarize(stub, [header("mse_loss", **wanted), _ONE]).summary


@pytest.mark.parametrize(
    "wanted",
    [
        {"options": {"other": 1}},
        {"tables": [["a"]]},
        {"worst": 1},
        {"relative_accuracy": 0.1},
        {"candidates": {"a": {}, "b": {}}},
    ],
    ids=lambda each: next(iter(each)),
)
def test_a_summary_of_something_else_is_not_continued(stub: Stub, wanted: dict[str, Any]) -> None:
    """It must be of the same header."""
    again = header("mse_loss", **wanted, resume_from=_summary(stub))
    assert _paths(stub, [again]) == ["header.resume_from"]


def test_a_malformed_summary_is_not_continued(stub: Stub) -> None:
    """A message that no server made is refused."""
    summary = _summary(stub)
    summary.total.distributions[0].terms.means.append(1.0)
    assert _paths(stub, [header("mse_loss", resume_from=summary)]) == ["header.resume_from"]


def test_rows_are_not_counted_twice(stub: Stub) -> None:
    """Rows that the summary to continue has already are refused."""
    summary = _summary(stub, first_row=2)
    again = header("mse_loss", resume_from=summary)
    assert _paths(stub, [again, _ONE]) == ["batches[0]"]


def test_a_column_in_a_region_that_is_missing(stub: Stub) -> None:
    """It is named by its path."""
    reference = tensor_pb2.Tensor(
        data_type=_INT64, shape=[3], region=tensor_pb2.Region(region_id=7)
    )
    parts = [header("mse_loss"), batch(_PAIR, ids=column(reference))]
    found = _refusal(stub, parts, grpc.StatusCode.FAILED_PRECONDITION)
    assert [each.field for each in found.violations] == ["batches[0].ids.codes.region"]


def test_a_message_of_very_many_fields(stub: Stub) -> None:
    """Millions of fields are refused before they are parsed, in batches and in headers."""
    group = summary_pb2.SliceTable(slices=[summary_pb2.GroupSummary()] * 600_000)
    flood = header("mse_loss", resume_from=summary_pb2.LossSummary(tables=[group]))
    found = _refusal(stub, [flood], grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert "fields" in found.message
    candidates = batch({}, candidates=[{}] * 600_000)
    found = _refusal(stub, [header("mse_loss"), candidates], grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert "fields" in found.message


def test_a_refused_header_is_no_progress(stub: Stub) -> None:
    """Nothing comes before the error."""
    answer = Answer()
    with pytest.raises(grpc.RpcError):
        summarize(stub, [header("mse_loss", worst=-1), _ONE], answer)
    assert answer == Answer()
