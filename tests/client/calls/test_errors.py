"""What a caller sees when a call or an item fails."""

import pickle
from collections.abc import Callable, Sequence
from typing import NoReturn

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2

import losswire.client
from losswire.client import (
    Client,
    Evaluation,
    InvalidArgumentError,
    LosswireError,
    ResourceExhaustedError,
    RetryPolicy,
    UnauthenticatedError,
    UnknownError,
    Violation,
)
from losswire.v1 import evaluation_pb2, status_pb2
from tests.client.conftest import Call
from tests.support.scripted import Script, Scripted, fail, serving

FAILURES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
ONCE = {"retry": RetryPolicy(max_attempts=1)}


def failing(code: grpc.StatusCode, message: str = "no", details: Sequence[Message] = ()) -> Script:
    """Make a script that fails every call in one way."""

    def script(_: evaluation_pb2.Evaluation, context: grpc.ServicerContext) -> NoReturn:
        fail(context, code, message, details=details)

    return script


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
def test_every_code_has_its_class(call: Call, code: grpc.StatusCode) -> None:
    """A failure of each code raises a public subclass of LosswireError named after it."""
    with serving(Scripted(failing(code))) as service, pytest.raises(LosswireError) as raised:
        call(service.address, "evaluate", "any", {}, settings=ONCE)
    name = "".join(word.capitalize() for word in code.name.split("_")) + "Error"
    assert type(raised.value) is getattr(losswire.client, name)
    assert raised.value.code is code
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_all_details_of_a_call(call: Call) -> None:
    """Reason, violations, request id and retry delay come from google.rpc's details."""
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        for field, description in [('inputs["target"]', "is missing"), ("loss", "is odd")]
    ]
    details = [
        error_details_pb2.DebugInfo(detail="not for callers"),
        error_details_pb2.ErrorInfo(reason="INVALID_EVALUATION", domain="losswire"),
        error_details_pb2.BadRequest(field_violations=violations),
        error_details_pb2.RequestInfo(request_id="abc"),
    ]
    script = failing(grpc.StatusCode.INVALID_ARGUMENT, "2 things are wrong", details)
    with serving(Scripted(script)) as service, pytest.raises(InvalidArgumentError) as raised:
        call(service.address, "evaluate", "any", {})
    error = raised.value
    assert (error.message, error.reason) == ("2 things are wrong", "INVALID_EVALUATION")
    assert error.violations == (
        Violation('inputs["target"]', "is missing"),
        Violation("loss", "is odd"),
    )
    assert (error.request_id, error.retry_after, error.retryable) == ("abc", None, False)
    assert str(error) == (
        "2 things are wrong (INVALID_ARGUMENT, INVALID_EVALUATION, request abc)\n"
        '  inputs["target"]: is missing\n'
        "  loss: is odd"
    )


def test_violations_that_the_message_repeats_are_told_once() -> None:
    """A message that lists the violations itself gives way to one line for each."""
    error = InvalidArgumentError("a: is bad; b: too", violations=[Violation("a", "is bad")])
    assert str(error) == "not accepted (INVALID_ARGUMENT)\n  a: is bad"


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param([], id="none"),
        pytest.param([("grpc-status-details-bin", b"\xff\xff")], id="damaged"),
        pytest.param([("grpc-status-details-bin", b"")], id="empty"),
        pytest.param([("grpc-retry-pushback-ms", "soon")], id="no number"),
    ],
)
def test_missing_or_damaged_details(call: Call, metadata: list[tuple[str, str | bytes]]) -> None:
    """Without readable details, code and message still count."""

    def script(_: evaluation_pb2.Evaluation, context: grpc.ServicerContext) -> NoReturn:
        fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "full", metadata=metadata)

    with serving(Scripted(script)) as service, pytest.raises(ResourceExhaustedError) as raised:
        call(service.address, "evaluate", "any", {})
    assert (raised.value.message, raised.value.reason) == ("full", "")
    assert not raised.value.retryable


def test_items_of_many_are_returned(call: Call) -> None:
    """A failed item is a LosswireError in its place, with all that its status says."""
    outcomes = iter(
        [
            evaluation_pb2.EvaluationOutcome(
                error=status_pb2.Status(
                    code=8, message="full", reason="OVERLOADED", retry_after_ms=250
                )
            ),
            evaluation_pb2.EvaluationOutcome(
                error=status_pb2.Status(
                    code=3,
                    message="wrong",
                    violations=[status_pb2.FieldViolation(field="loss", description="is odd")],
                )
            ),
            evaluation_pb2.EvaluationOutcome(error=status_pb2.Status(code=99)),
        ]
    )
    service = Scripted(item_script=lambda _: next(outcomes))
    with serving(service):
        full, wrong, odd = call(service.address, "evaluate_many", [Evaluation("any", {})] * 3)
    assert type(full) is ResourceExhaustedError
    assert (full.reason, full.retry_after, full.retryable) == ("OVERLOADED", 0.25, True)
    assert type(wrong) is InvalidArgumentError
    assert wrong.violations == (Violation("loss", "is odd"),)
    assert type(odd) is UnknownError
    assert "99" in odd.message


def test_a_message_over_the_limit_says_what_to_do(call: Call) -> None:
    """The refusal of a large message by gRPC is explained, and not tried again."""
    with serving(Scripted()) as service, pytest.raises(ResourceExhaustedError) as raised:
        call(service.address, "evaluate", "any", {"x": [0.0] * 2_000_000})
    error = raised.value
    assert (error.reason, error.retryable) == ("MESSAGE_TOO_LARGE", False)
    assert "Split the batch" in error.message
    assert "800" in error.message


def test_a_refused_token(call: Call) -> None:
    """A server that asks for another token is UnauthenticatedError."""

    def script(_: evaluation_pb2.Evaluation, context: grpc.ServicerContext) -> NoReturn:
        fail(context, grpc.StatusCode.UNAUTHENTICATED, "who are you?")

    with serving(Scripted(script)) as service, pytest.raises(UnauthenticatedError):
        call(service.address, "evaluate", "any", {}, settings={"token": "wrong"})


def test_an_error_survives_pickling() -> None:
    """Errors cross process boundaries with all their facts."""
    error = InvalidArgumentError(
        "wrong",
        reason="R",
        violations=[Violation("loss", "is odd")],
        request_id="abc",
        retry_after=0.5,
        retryable=True,
    )
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made right here
    assert type(copy) is InvalidArgumentError
    assert (str(copy), vars(copy)) == (str(error), vars(error))


@pytest.mark.parametrize(
    "close",
    [lambda client: client.close(), lambda client: client.__exit__(None, None, None)],
    ids=["close", "with"],
)
def test_a_closed_client_says_so(echoing: Scripted, close: Callable[[Client], None]) -> None:
    """Calls after closing are RuntimeError, and closing twice is no mistake."""
    client = Client(echoing.address)
    close(client)
    close(client)
    with pytest.raises(RuntimeError, match="this client is closed"):
        client.evaluate("any", {})
    with pytest.raises(RuntimeError, match="this client is closed"):
        client.__enter__()
