"""Runs that are saved come back as they were, once each, and what is wrong is named."""

import math
import time
from collections.abc import Callable, Mapping

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from losswire.v1 import evaluation_pb2, run_service_pb2, summary_pb2, tensor_pb2
from tests.support.requests import TIMEOUT
from tests.support.runs import RunStub as Stub
from tests.support.runs import code_of, field_paths, get, reason_of, run, save, summary

Run = run_service_pb2.Run


def _full(run_id: str) -> Run:
    """Return a run with everything that a caller can set."""
    shape = tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[3])
    evaluation = evaluation_pb2.Evaluation(loss="cross_entropy", inputs={"weight": shape})
    return Run(
        run_id=run_id,
        name="Nightly, ночь",
        labels={"model": "b", "data set": "digits", "empty": ""},
        started=Timestamp(seconds=1_700_000_000, nanos=5),
        ended=Timestamp(seconds=1_700_000_060),
        header=summary_pb2.SummaryHeader(evaluation=evaluation, worst=3),
        summary=summary([[1.0, 2.0, 6.0], [0.0, 2.0, 7.0]], candidates=("a", "b")),
    )


def test_a_run_comes_back_whole(stub: Stub) -> None:
    """Everything that was sent, and what the server sets: time, loss and figures."""
    sent = _full("whole")
    before = time.time_ns()
    answer = save(stub, sent)
    after = time.time_ns()
    kept = get(stub, "whole")
    assert answer.created
    assert before // 1000 <= kept.saved.ToMicroseconds() <= after // 1000
    assert kept.loss == "mse_loss"
    figures = [(each.candidate, each.count, each.mean) for each in kept.figures]
    assert figures == [("a", 3, 3.0), ("b", 3, 3.0)]
    assert [each.standard_error for each in kept.figures] == pytest.approx(
        [math.sqrt(7 / 3), math.sqrt(13 / 3)]
    )
    for name in ("saved", "figures", "loss"):
        kept.ClearField(name)
    assert kept == sent


def test_the_answer_is_the_run_of_a_list(stub: Stub) -> None:
    """A save returns the run without header and summary."""
    answer = save(stub, _full("answered")).run
    kept = get(stub, "answered")
    kept.ClearField("header")
    kept.ClearField("summary")
    assert answer == kept


def test_the_same_run_again_changes_nothing(stub: Stub) -> None:
    """A repetition succeeds, and says that it kept nothing."""
    first, second = save(stub, _full("again")), save(stub, _full("again"))
    assert (first.created, second.created) == (True, False)
    assert first.run == second.run


def test_what_the_server_sets_is_not_the_callers(stub: Stub) -> None:
    """A run as it came from a server can be saved in another, or again."""
    save(stub, _full("set"))
    copy = get(stub, "set")
    copy.creator, copy.loss = "somebody", "l1_loss"
    copy.saved.FromSeconds(1)
    assert not save(stub, copy).created
    assert get(stub, "set").creator == ""


OTHER: Mapping[str, Callable[[Run], object]] = {
    "name": lambda each: setattr(each, "name", "another"),
    "label": lambda each: each.labels.update({"model": "c"}),
    "one label less": lambda each: each.labels.pop("model"),
    "start": lambda each: each.started.FromSeconds(1),
    "header": lambda each: each.ClearField("header"),
    "summary": lambda each: each.summary.CopyFrom(summary([1.0, 2.0])),
}


@pytest.mark.parametrize("change", OTHER)
def test_another_run_of_the_same_id_is_refused(stub: Stub, change: str) -> None:
    """ALREADY_EXISTS, and the first run stays as it is."""
    run_id = f"other-{change.replace(' ', '-')}"
    save(stub, _full(run_id))
    kept, other = get(stub, run_id), _full(run_id)
    OTHER[change](other)
    with pytest.raises(grpc.RpcError) as refused:
        save(stub, other)
    assert code_of(refused) is grpc.StatusCode.ALREADY_EXISTS
    assert field_paths(refused) == ["run.run_id"]
    assert get(stub, run_id) == kept


def _with_tensor(message: Run) -> None:
    tensor = tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1], data=b"1234")
    message.header.evaluation.inputs["weight"].CopyFrom(tensor)
    message.header.candidates.add(name="a").inputs["bias"].CopyFrom(tensor)


def _two_columns(message: Run) -> None:
    message.summary.CopyFrom(summary([1.0, 2.0], {"country": ["DE", "FR"]}))
    message.summary.tables[0].columns.append("device")


def _lost_row(message: Run) -> None:
    message.summary.CopyFrom(summary([1.0, 2.0], {"country": ["DE", "FR"]}))
    message.summary.tables[0].slices.pop()


WRONG: Mapping[str, tuple[Callable[[Run], object], list[str]]] = {
    "nothing": (lambda each: each.Clear(), ["run.run_id", "run.summary"]),
    "id with a space": (lambda each: setattr(each, "run_id", "a b"), ["run.run_id"]),
    "id of 129": (lambda each: setattr(each, "run_id", "a" * 129), ["run.run_id"]),
    "id with a line": (lambda each: setattr(each, "run_id", "a\n"), ["run.run_id"]),
    "name of 257 bytes": (lambda each: setattr(each, "name", "ä" * 128 + "a"), ["run.name"]),
    "name with NUL": (lambda each: setattr(each, "name", "a\0"), ["run.name"]),
    "65 labels": (
        lambda each: each.labels.update({str(number): "" for number in range(65)}),
        ["run.labels"],
    ),
    "empty key": (lambda each: each.labels.update({"": "b"}), ['run.labels[""]']),
    "value of 1025": (lambda each: each.labels.update({"a": "b" * 1025}), ['run.labels["a"]']),
    "value with NUL": (lambda each: each.labels.update({"a": "\0"}), ['run.labels["a"]']),
    "end before start": (lambda each: each.ended.FromSeconds(1), ["run.ended"]),
    "no time": (lambda each: setattr(each.started, "nanos", -1), ["run.started"]),
    "elements": (
        _with_tensor,
        [
            'run.header.evaluation.inputs["weight"].data',
            'run.header.candidates[0].inputs["bias"].data',
        ],
    ),
    "resume_from": (
        lambda each: each.header.resume_from.SetInParent(),
        ["run.header.resume_from"],
    ),
    "no loss": (lambda each: each.summary.ClearField("loss"), ["run.summary"]),
    "no total": (lambda each: each.summary.ClearField("total"), ["run.summary"]),
    "one candidate": (
        lambda each: each.summary.CopyFrom(summary([1.0, 2.0], candidates=("a",))),
        ["run.summary.candidates"],
    ),
    "same names": (
        lambda each: each.summary.CopyFrom(summary([[1.0], [2.0]], candidates=("a", "a"))),
        ["run.summary.candidates"],
    ),
    "negative count": (
        lambda each: setattr(each.summary.total.distributions[0], "count", -1),
        ["run.summary.total.distributions[0]"],
    ),
    "more NaN than rows": (
        lambda each: setattr(each.summary.total.distributions[0], "nan_count", 4),
        ["run.summary.total.distributions[0]"],
    ),
    "labels of a slice": (
        _two_columns,
        ["run.summary"],
    ),
    "lost slice": (_lost_row, ["run.summary.tables[0]"]),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_named_by_its_field(stub: Stub, mistake: str) -> None:
    """INVALID_ARGUMENT with every path, and nothing is kept."""
    message = _full("wrong")
    change, fields = WRONG[mistake]
    change(message)
    with pytest.raises(grpc.RpcError) as refused:
        save(stub, message)
    assert code_of(refused) is grpc.StatusCode.INVALID_ARGUMENT
    assert field_paths(refused) == fields
    with pytest.raises(grpc.RpcError) as missing:
        get(stub, "wrong")
    assert code_of(missing) is grpc.StatusCode.NOT_FOUND


def test_a_run_that_is_not_there_is_not_found(stub: Stub) -> None:
    """Reading is NOT_FOUND; deleting says that there was none."""
    with pytest.raises(grpc.RpcError) as refused:
        get(stub, "nowhere")
    assert code_of(refused) is grpc.StatusCode.NOT_FOUND
    assert reason_of(refused) == "MISSING_RUN"
    request = run_service_pb2.DeleteRunRequest(run_id="nowhere")
    assert not stub.DeleteRun(request, timeout=TIMEOUT).deleted


def test_a_deleted_run_is_gone_and_its_id_free(stub: Stub) -> None:
    """Another run may have its id then."""
    save(stub, run("gone"))
    request = run_service_pb2.DeleteRunRequest(run_id="gone")
    assert stub.DeleteRun(request, timeout=TIMEOUT).deleted
    with pytest.raises(grpc.RpcError):
        get(stub, "gone")
    assert save(stub, run("gone", name="another")).created


@pytest.mark.parametrize("method", ["GetRun", "DeleteRun"])
def test_an_id_that_cannot_be_one_is_refused(stub: Stub, method: str) -> None:
    """INVALID_ARGUMENT with the field."""
    request = getattr(run_service_pb2, f"{method}Request")(run_id="../etc/passwd")
    with pytest.raises(grpc.RpcError) as refused:
        getattr(stub, method)(request, timeout=TIMEOUT)
    assert code_of(refused) is grpc.StatusCode.INVALID_ARGUMENT
    assert field_paths(refused) == ["run_id"]


def test_a_run_as_large_as_a_message_is_kept(stub: Stub) -> None:
    """A run just below the limit of a message is kept, and one above it refused."""
    large = run("large")
    large.summary.total.clusters.SetInParent()
    for number in range(180_000):
        large.summary.total.clusters.open.add(number=number, sums=[1.0, 1.0])
    assert 4 << 20 < large.ByteSize() < 8 << 20
    save(stub, large)
    assert len(get(stub, "large").summary.total.clusters.open) == 180_000
    large.summary.total.clusters.MergeFrom(large.summary.total.clusters)
    with pytest.raises(grpc.RpcError) as refused:
        save(stub, large)
    assert code_of(refused) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_run_of_empty_parts_is_refused_before_it_grows(channel: grpc.Channel) -> None:
    """Submessages without content, deep inside, would take a hundred times their bytes."""
    table = summary_pb2.SliceTable(columns=["a"]).SerializeToString() + b"\x12\x00" * (3 << 20)
    message = summary_pb2.LossSummary(loss="mse_loss").SerializeToString()
    message += b"\x3a" + _length(table) + table
    message = b"\x3a" + _length(message) + message
    request = b"\x0a" + _length(message) + message
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        "/losswire.v1.RunService/SaveRun", None, None
    )
    with pytest.raises(grpc.RpcError) as refused:
        call(request, timeout=TIMEOUT)
    assert code_of(refused) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(refused) == "OVER_LIMIT"


def _length(data: bytes) -> bytes:
    """Write a length as protobuf does."""
    size, written = len(data), bytearray()
    while size > 127:
        written.append(size & 127 | 128)
        size >>= 7
    written.append(size)
    return bytes(written)
