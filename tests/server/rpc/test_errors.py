"""Every error has its line in the table, and only texts written for callers are sent."""

import json
import logging
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2

from losswire.server.errors import (
    InvalidEvaluationError,
    LosswireServerError,
    OverloadedError,
    UnknownLossError,
)
from losswire.server.log import JsonFormatter
from losswire.server.rpc.status import (
    DOMAIN,
    ERROR_CODES,
    call_status,
    error_code_of,
    item_status,
    text_for_caller,
)
from losswire.v1 import loss_service_pb2
from losswire.wire import MalformedTensorError, Violation
from tests.support.harness import Child, path_with
from tests.support.requests import (
    GOLDEN,
    TIMEOUT,
    Method,
    Stub,
    by_call,
    by_many,
    by_stream,
    details,
    evaluation,
    f32,
    is_golden,
    trailing,
)

_CODES = {3, 4, 5, 6, 8, 9, 12, 13, 14, 15, 16}
"""The codes that the contract names; 6 and 15 are of runs."""


def _kinds(root: type[Exception]) -> Iterator[type[Exception]]:
    """Yield a class and all its subclasses."""
    yield root
    for each in root.__subclasses__():
        yield from _kinds(each)


_ERRORS = [*_kinds(LosswireServerError), *_kinds(MalformedTensorError)]
_CONCRETE = [each for each in _ERRORS if each is not LosswireServerError]


@pytest.mark.parametrize("kind", _CONCRETE, ids=[each.__name__ for each in _CONCRETE])
def test_every_error_has_its_line_in_the_table(kind: type[Exception]) -> None:
    """An error for callers has a code of the contract, other than INTERNAL, and a reason."""
    entry = ERROR_CODES[kind]
    assert entry.code is not grpc.StatusCode.INTERNAL
    assert entry.code.value[0] in _CODES
    assert entry.reason.isupper()


def test_reasons_name_errors_one_to_one() -> None:
    """Each reason belongs to one error."""
    reasons = [each.reason for each in ERROR_CODES.values()]
    assert len(set(reasons)) == len(reasons)


def test_the_table_is_looked_up_along_the_ancestors() -> None:
    """A subclass has the status of its nearest ancestor in the table."""

    class DerivedError(OverloadedError):
        """An error that has no line of its own."""

    assert error_code_of(DerivedError("", 1)) is ERROR_CODES[OverloadedError]
    assert error_code_of(KeyError()) is ERROR_CODES[Exception]


def test_only_texts_for_callers_travel() -> None:
    """Any other error's text is replaced by the request's id."""
    assert text_for_caller(UnknownLossError("x", []), "id") == 'there is no loss "x"'
    expected = "internal error; the server's log has the details under request id"
    for error in (ValueError("secret"), RuntimeError("secret"), OSError(2, "secret", "/secret")):
        assert text_for_caller(error, "id") == expected
        assert "secret" not in str(item_status(error, "id"))
        assert "secret" not in str(call_status(error, "id"))


def test_the_same_facts_travel_with_a_call_and_with_an_item() -> None:
    """The rich status of a call holds what the item's status holds."""
    error = InvalidEvaluationError([Violation("a", "is b"), Violation("c", "is d")])
    item, call = item_status(error, "id"), call_status(error, "id")
    info, request, bad = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.RequestInfo(),
        error_details_pb2.BadRequest(),
    )
    for packed, message in zip(call.details, (info, request, bad), strict=True):
        assert packed.Unpack(message)
    assert (call.code, call.message) == (item.code, item.message)
    assert (info.reason, info.domain) == (item.reason, DOMAIN) == ("INVALID_EVALUATION", "losswire")
    assert request.request_id == "id"
    assert [(each.field, each.description) for each in bad.field_violations] == [
        (each.field, each.description) for each in item.violations
    ]


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40, 1000])
def test_a_list_of_violations_is_cut_with_a_note(count: int) -> None:
    """At most 16 violations are sent; the last one counts those that are left out."""
    found = [Violation(f"field{number}", "is wrong") for number in range(count)]
    told = item_status(InvalidEvaluationError(found), "id").violations
    if count <= 16:
        assert [each.field for each in told] == [each.field for each in found]
        return
    assert len(told) == 16
    assert told[-1].description == f"and {count - 15} more violations"


@pytest.mark.parametrize("letter", ["x", "\N{SNOWMAN}", "\N{GRINNING FACE}"])
def test_long_texts_are_cut_to_a_size_in_bytes(letter: str) -> None:
    """A letter of several bytes is never cut in two, and the whole stays small."""
    found = [Violation(letter * 1000, letter * 1000)] * 3
    status = call_status(InvalidEvaluationError(found), "id")
    assert status.ByteSize() < 5000
    assert status.message.endswith("...")
    assert status.message.strip(".").strip(letter) == ""


_FAULTY = '''
from torch import Tensor

from losswire.server.declare import Input, Terms, floats, layout, loss


@loss(
    layouts=(layout("any", input=floats("*S"), values="*S"),),
    inputs={"input": Input(meaning="Numbers.")},
    source="tests",
)
def faulty(input: Tensor) -> Terms:
    """Fail."""
    raise RuntimeError("the secret\\nof 7 rows")
'''


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server with a loss that always fails."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "faulty_loss.py").write_text(_FAULTY)
    with Child(
        folder / "log", "--losses", "faulty_loss", environment={"PYTHONPATH": path_with(folder)}
    ) as child:
        yield child


_ITEM = evaluation("faulty", {"input": f32(1)})


def _logged(child: Child, message: str) -> str:
    """Find the only entry of the log for the request of an answer; returns its exception."""
    request_id = message.rpartition(" ")[2]
    assert len(request_id) == 16
    entries = [each for each in child.entries() if request_id in each["message"]]
    assert [each["level"] for each in entries] == ["error"]
    return str(entries[0]["exception"])


def test_a_failing_loss_is_internal_without_its_text(faulty: Child) -> None:
    """A call: INTERNAL, the request's number in text and metadata, the traceback in the log."""
    with faulty.channel() as channel, pytest.raises(grpc.RpcError) as failed:
        Stub(channel).Evaluate(loss_service_pb2.EvaluateRequest(evaluation=_ITEM), timeout=TIMEOUT)
    error = failed.value
    text, request_id = str(error.details()), trailing(error)["x-request-id"]
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in repr((text, error.trailing_metadata()))
    assert text == f"internal error; the server's log has the details under request {request_id!s}"
    request = details(error)[1][error_details_pb2.RequestInfo]
    assert isinstance(request, error_details_pb2.RequestInfo)
    assert request.request_id == request_id
    assert "the secret\nof 7 rows" in _logged(faulty, text)


@pytest.mark.parametrize("method", [by_many, by_stream], ids=["Many", "Stream"])
def test_a_failing_item_is_internal_without_its_text(faulty: Child, method: Method) -> None:
    """An item: INTERNAL under its request's number, and the items beside it are answered."""
    with faulty.channel() as channel:
        stub = Stub(channel)
        error = method(stub, _ITEM).error
        assert is_golden(by_call(stub, GOLDEN).result)
    assert (error.code, error.reason) == (13, "INTERNAL")
    assert "secret" not in str(error)
    assert "the secret\nof 7 rows" in _logged(faulty, error.message)


def test_texts_from_outside_cannot_forge_a_line_of_the_log() -> None:
    """Every record is one line of JSON."""
    record = logging.LogRecord("x", logging.INFO, "", 0, 'a\n{"level": "b"}\r\u2028"', (), None)
    line = JsonFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == 'a\n{"level": "b"}\r\u2028"'
