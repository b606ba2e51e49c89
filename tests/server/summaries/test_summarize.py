"""SummarizeLosses over the real transport: what is counted, reported and continued."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from losswire.server.catalogue.record import Kind, LossRecord
from losswire.server.losses import builtin_registry
from losswire.v1 import evaluation_pb2, summary_pb2
from tests.support.exact import MEANS, near
from tests.support.requests import Array, Stub, by_call, evaluation, f32, i64, trailing
from tests.support.summary_calls import (
    Answer,
    Request,
    batch,
    column,
    header,
    numerator_and_denominator,
    summarize,
)
from tests.support.table import plan

_LOSSES = [each for each in builtin_registry() if each.kind is Kind.LOSS]
_RNG = np.random.default_rng(11)
_ROWS = (7, 1, 100, 33)
"""The rows of ragged batches."""


def _logits(rows: int, classes: int = 5) -> Array:
    return _RNG.standard_normal((rows, classes)).astype(np.float32)


_BATCHES = [
    {"input": _logits(rows), "target": _RNG.integers(0, 5, rows), "w": _RNG.random(rows)}
    for rows in _ROWS
]
_INPUTS = [{name: each[name] for name in ("input", "target")} for each in _BATCHES]
_LAST = sum(_ROWS)


def _values(inputs: Sequence[dict[str, Array]]) -> Array:
    """Return the cross entropy of each row, in float64."""
    logits = np.concatenate([each["input"] for each in inputs]).astype(np.float64)
    classes = np.concatenate([each["target"] for each in inputs])
    lse = np.log(np.exp(logits).sum(axis=1))
    return np.asarray(lse - logits[np.arange(len(logits)), classes])


def _one_of_each(record: LossRecord) -> Iterator[evaluation_pb2.Evaluation]:
    """Return one evaluation of a mean for each layout, reduction, and shape of weights."""
    seen = set()
    for cell in plan(record):
        ask = cell.ask
        weighted = None if ask.sample_weight is None else ask.sample_weight.ndim
        key = (cell.ground.layout.name, ask.reduction, weighted)
        if ask.reduction in MEANS and ask.normalizer is None and key not in seen:
            seen.add(key)
            message = ask.message()
            for name in ("gradients_for", "grad_output", "gradient_data_type"):
                message.ClearField(name)
            message.engine = evaluation_pb2.ENGINE_AUTO
            yield message


@pytest.mark.parametrize("record", _LOSSES, ids=lambda each: each.name)
def test_mean_of_a_summary_is_that_of_evaluations(stub: Stub, record: LossRecord) -> None:
    """For each loss, the mean over batches is the sum of numerators over that of denominators."""
    for message in _one_of_each(record):
        expected = by_call(stub, message).result
        one = header(
            message.loss,
            options=dict(message.options),
            fields={
                "reduction": message.reduction,
                "compute_data_type": message.compute_data_type,
            },
        )
        weight = message.sample_weight if message.HasField("sample_weight") else None
        part = batch(dict(message.inputs), sample_weight=weight)
        answer = summarize(stub, [one, part, part])
        total = answer.total
        with np.errstate(all="ignore"):
            mean = np.float64(expected.mean_numerator) / np.float64(expected.mean_denominator)
        if not np.isfinite(mean):
            assert near(answer.progress[-1].means[0], mean, 0)
            continue
        most = total.count * max(abs(total.minimum), abs(total.maximum))
        assert near(total.mean_numerator, 2 * expected.mean_numerator, 1e-12 * most)
        assert total.mean_denominator == pytest.approx(2 * expected.mean_denominator, rel=1e-12)
        assert answer.reports[-1].final


def test_progress_and_reports(stub: Stub) -> None:
    """Progress counts up to the last batch; reports come where they are due, and the final one."""
    parts = [batch(each, report=number == 2) for number, each in enumerate(_INPUTS)]
    answer = summarize(stub, [header("cross_entropy", report_every_batches=2), *parts])
    assert [(each.batches, each.final) for each in answer.reports] == [
        (2, False),
        (3, False),
        (4, False),
        (4, True),
    ]
    ends = list(itertools.accumulate(_ROWS))
    assert [(each.batches, each.rows) for each in answer.progress if each.batches > 1] == [
        (2, ends[1]),
        (3, ends[2]),
        (4, ends[3]),
    ]
    values = _values(_INPUTS)
    last = answer.progress[-1]
    np.testing.assert_allclose(last.means, [values.mean()], rtol=1e-6)
    error = values.std(ddof=1) / np.sqrt(len(values))
    np.testing.assert_allclose(last.standard_errors, [error], rtol=1e-6)
    assert answer.total.count == _LAST
    for report in answer.reports:
        [span] = report.summary.included[0].ranges
        assert (span.begin, span.end) == (0, ends[report.batches - 1])


def test_a_summary_without_batches(stub: Stub) -> None:
    """It is final, and has no rows."""
    answer = summarize(stub, [header("mse_loss")])
    assert (answer.progress, answer.total.count) == ([], 0)
    assert (answer.reports[0].final, answer.reports[0].batches) == (True, 0)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64"])
def test_slices_clusters_and_ids(stub: Stub, dtype: str) -> None:
    """Rows are counted in their slices, by text and number, and the worst carry their ids."""
    countries = [["DE", "FR"], ["FR", "DE"], ["FR"], ["US", "DE"]]
    parts, named, numbered = [], [], []
    for inputs, texts in zip(_INPUTS, countries, strict=True):
        rows = len(inputs["target"])
        labels = texts[:rows]
        codes = np.arange(rows) % len(labels)
        numbers = (np.arange(rows) % 3).astype(dtype)
        named += [labels[each] for each in codes]
        numbered += numbers.tolist()
        parts.append(
            batch(
                inputs,
                columns={
                    "country": column(codes.astype(dtype), *labels),
                    "kind": column(numbers),
                },
                clusters=column(numbers),
                ids=column(np.arange(rows, dtype=dtype), *[f"row {each}" for each in range(rows)]),
            )
        )
    answer = summarize(
        stub,
        [header("cross_entropy", tables=[["country"], ["kind", "country"]], worst=2), *parts],
    )
    values = _values(_INPUTS)
    first, second = answer.summary.tables
    found = {tuple(each.labels): each.distributions[0] for each in first.slices}
    for name in ("DE", "FR", "US"):
        chosen = values[np.array(named) == name]
        assert found[name,].count == len(chosen)
        np.testing.assert_allclose(found[name,].sum, chosen.sum(), rtol=1e-6)
    pairs = set(zip(map(str, numbered), named, strict=True))
    assert {tuple(each.labels) for each in second.slices} == pairs
    worst = int(values.argmax())
    row = answer.total.worst[0]
    assert row.row == worst
    start = max(end for end in (0, *itertools.accumulate(_ROWS)) if end <= worst)
    assert row.name == f"row {worst - start}"
    assert dict(row.labels) == {"country": named[worst], "kind": str(numbered[worst])}
    assert answer.summary.clustered
    assert [each.number for each in answer.summary.total.clusters.open] == [0, 1, 2]


def test_candidates_over_the_same_rows(stub: Stub) -> None:
    """Each candidate has its own inputs, of the header and of batches, and pairs are counted."""
    shared = {"a": {"linear_weight": _logits(5, 4)}, "b": {"linear_weight": _logits(5, 4)}}
    features = [_RNG.standard_normal((rows, 4)).astype(np.float32) for rows in _ROWS]
    parts = [
        batch({"target": each["target"]}, candidates=[{"input": x}, {"input": x + 1}])
        for each, x in zip(_INPUTS, features, strict=True)
    ]
    answer = summarize(stub, [header("linear_cross_entropy", candidates=shared), *parts])
    assert list(answer.summary.candidates) == ["a", "b"]
    values = []
    for number, own in enumerate(shared.values()):
        matrix = own["linear_weight"]
        inputs = [
            {"input": (x + number) @ matrix.T, "target": each["target"]}
            for each, x in zip(_INPUTS, features, strict=True)
        ]
        values.append(_values(inputs))
        found = answer.summary.total.distributions[number]
        np.testing.assert_allclose(found.sum, values[-1].sum(), rtol=1e-6)
    [pair] = answer.summary.total.pairs
    wins = int((values[0] < values[1]).sum())
    assert (pair.wins, pair.ties, pair.losses) == (wins, 0, _LAST - wins)


@pytest.mark.parametrize("rows", [1, 6000], ids=["small", "large"])
@pytest.mark.parametrize("compared", [False, True])
def test_large_batches_are_read_like_small_ones(stub: Stub, rows: int, *, compared: bool) -> None:
    """Tensors that are cut out of their message, aligned or not, are those of small ones."""
    logits, classes = _logits(rows, 40), _RNG.integers(0, 40, rows)
    weight = _RNG.random(rows).astype(np.float32)
    shared = {"weight": f32(*range(1, 41))}
    if not compared:
        parts = [batch({"input": logits, "target": classes}, sample_weight=weight)]
        answer = summarize(stub, [header("cross_entropy", shared), *parts])
    else:
        own = [{"input": logits}, {"input": logits}]
        parts = [batch({"target": classes}, candidates=own, sample_weight=weight)]
        names: dict[str, dict[str, Array]] = {"a": {}, "b": {}}
        answer = summarize(stub, [header("cross_entropy", shared, candidates=names), *parts])
    one = evaluation(
        "cross_entropy", {"input": logits, "target": classes, **shared}, sample_weight=weight
    )
    above, below = numerator_and_denominator([by_call(stub, one).result])
    for found in answer.summary.total.distributions:
        np.testing.assert_allclose(found.mean_numerator, above, rtol=1e-12)
        np.testing.assert_allclose(found.mean_denominator, below, rtol=1e-12)


def _without_last_bits(message: summary_pb2.LossSummary) -> summary_pb2.LossSummary:
    """Return a summary without sums and moments, which differ in their last bits."""
    copy = summary_pb2.LossSummary()
    copy.CopyFrom(message)
    for group in [copy.total, *(each for table in copy.tables for each in table.slices)]:
        for each in group.distributions:
            for name in ("sum", "mean_numerator", "terms", "values", "weight_square_sum"):
                each.ClearField(name)
            each.weight_sum, each.mean_denominator = (
                round(each.weight_sum, 9),
                round(each.mean_denominator, 9),
            )
        group.ClearField("clusters")
    return copy


@pytest.mark.parametrize("cut", range(len(_ROWS) + 1))
def test_a_summary_is_continued(stub: Stub, cut: int) -> None:
    """Continued from its last report, a summary is that of one call, whatever was sent before."""
    parts = [
        batch(each, columns={"c": column(each["target"])}, clusters=column(each["target"]))
        for each in _INPUTS
    ]
    place = {"partition": "part 7", "first_row": 1000}
    wanted: dict[str, Any] = {"tables": [["c"]], "worst": 3, **place}
    whole = summarize(stub, [header("cross_entropy", **wanted), *parts])
    first = summarize(stub, [header("cross_entropy", **wanted), *parts[:cut]])
    again = header("cross_entropy", **wanted, resume_from=first.summary)
    second = summarize(stub, [again, *parts[cut:]])
    assert second.reports[-1].batches == len(parts) - cut
    if cut < len(parts):
        assert second.progress[-1].rows == _LAST
    assert _without_last_bits(second.summary) == _without_last_bits(whole.summary)
    np.testing.assert_allclose(second.total.sum, whole.total.sum, rtol=1e-12)
    [included] = second.summary.included
    assert (included.partition, included.ranges[0].begin) == ("part 7", 1000)
    assert [each.end for each in included.ranges] == [1000 + _LAST]


def test_another_partition_is_added(stub: Stub) -> None:
    """A summary is continued with the rows of another file, which begin at 0."""
    first = summarize(stub, [header("mse_loss", partition="a"), batch(_pair(3))])
    again = header("mse_loss", partition="b", resume_from=first.summary)
    second = summarize(stub, [again, batch(_pair(2))])
    assert [(each.partition, each.ranges[0].end) for each in second.summary.included] == [
        ("a", 3),
        ("b", 2),
    ]


def _pair(rows: int) -> dict[str, Array]:
    return {"input": np.ones((rows, 2)), "target": np.zeros((rows, 2))}


def test_a_bad_batch_ends_the_call_after_the_good_ones(stub: Stub) -> None:
    """Earlier batches are counted, and their reports stand."""
    answer = Answer()
    parts = [batch(_INPUTS[0]), batch(_INPUTS[1], report=True)]
    parts.append(batch({"input": _logits(2), "target": i64(0, 5)}))
    with pytest.raises(grpc.RpcError) as refused:
        summarize(stub, [header("cross_entropy"), *parts, batch(_INPUTS[2])], answer)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.reports[-1].batches == 2
    assert answer.summary.total.distributions[0].count == 8


def _sliced(numbers: Sequence[int]) -> Request:
    return batch(_pair(len(numbers)), columns={"c": column(i64(*numbers))}, report=True)


def test_too_many_slices(stub: Stub) -> None:
    """They are refused for good, with nothing of the batch counted, or are counted as others."""
    answer = Answer()
    parts = [_sliced([1, 2]), _sliced([2, 3]), _sliced([1])]
    limits: dict[str, Any] = {"tables": [["c"]], "max_slices": 2}
    with pytest.raises(grpc.RpcError) as refused:
        summarize(stub, [header("mse_loss", **limits), *parts], answer)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(refused.value.details()).startswith("batches[1]: ")
    assert trailing(refused.value)["grpc-retry-pushback-ms"] == "-1"
    assert [each.rows for each in answer.progress] == [2]
    assert answer.total.count == 2
    limits["slice_overflow"] = summary_pb2.SLICE_OVERFLOW_OTHER
    answer = summarize(stub, [header("mse_loss", **limits), *parts])
    [table] = answer.summary.tables
    assert [each.labels[0] for each in table.slices] == ["1", "2"]
    assert table.other.distributions[0].count == 1


def test_too_many_open_clusters(stub: Stub) -> None:
    """Without an order all clusters stay open; neighbours are folded."""
    part = batch(_pair(6), clusters=column(i64(1, 1, 2, 3, 3, 4)))
    with pytest.raises(grpc.RpcError) as refused:
        summarize(stub, [header("mse_loss", max_open_clusters=3), part])
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    grouped = header(
        "mse_loss", max_open_clusters=3, cluster_order=summary_pb2.CLUSTER_ORDER_GROUPED
    )
    answer = summarize(stub, [grouped, part])
    assert [each.number for each in answer.summary.total.clusters.open] == [1, 4]


def test_nan_and_infinite_rows(stub: Stub) -> None:
    """They are counted apart, and lead the worst rows."""
    value = f32(1, np.nan, 2, np.inf, 3)
    part = batch({"input": value, "target": f32(0, 0, 0, 0, 0)}, sample_weight=f32(1, 1, 1, 1, 0))
    answer = summarize(stub, [header("l1_loss", worst=2), part])
    total = answer.total
    assert (total.count, total.ignored_count, total.nan_count) == (4, 1, 1)
    assert total.positive_infinity_count == 1
    assert (total.sum, total.minimum, total.maximum) == (3, 1, 2)
    assert [each.row for each in total.worst] == [1, 3]
    assert np.isnan(answer.progress[-1].means[0])
