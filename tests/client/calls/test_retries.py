"""When a call is tried again, by decision and over the wire."""

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from losswire.client import (
    DeadlineExceededError,
    InternalError,
    LosswireError,
    ResourceExhaustedError,
    RetryPolicy,
    UnavailableError,
)
from losswire.client._calls.retry import Attempts, Rotation, delay_before_retry
from losswire.v1 import evaluation_pb2
from tests.client.conftest import Call
from tests.support.scripted import Scripted, echo, fail, retry_info, serving

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

RESET = "Received RST_STREAM with error code 2"
BUG = error_details_pb2.ErrorInfo(reason="INTERNAL", domain="losswire")

DOWN = UnavailableError("down", retryable=True)
PUSHED_BACK = ResourceExhaustedError("full", retry_after=0.3, retryable=True)
POLICY = RetryPolicy(initial_backoff=0.1, max_backoff=1.0, multiplier=2.0)


@pytest.mark.parametrize(
    ("policy", "attempts", "error", "remaining", "draw", "expected"),
    [
        pytest.param(POLICY, 1, DOWN, 9.0, 1.0, 0.1, id="first"),
        pytest.param(POLICY, 2, DOWN, 9.0, 1.0, 0.2, id="second"),
        pytest.param(POLICY, 4, DOWN, 9.0, 1.0, 0.8, id="fourth"),
        pytest.param(POLICY, 5, DOWN, 9.0, 1.0, 1.0, id="capped"),
        pytest.param(POLICY, 10**6, DOWN, 9.0, 1.0, 1.0, id="never overflows"),
        pytest.param(POLICY, 2, DOWN, 9.0, 0.5, 0.1, id="jitter"),
        pytest.param(POLICY, 2, DOWN, 9.0, 0.0, 0.0, id="full jitter"),
        pytest.param(POLICY, 1, DOWN, 0.1, 1.0, 0.05, id="would outlast the deadline"),
        pytest.param(POLICY, 1, DOWN, 0.0, 0.0, None, id="nothing left"),
        pytest.param(POLICY, 1, DOWN, 0.02, 1.0, None, id="no time for another try"),
        pytest.param(POLICY, 1, PUSHED_BACK, 9.0, 0.5, 0.3, id="pushback is the least"),
        pytest.param(POLICY, 4, PUSHED_BACK, 9.0, 1.0, 0.8, id="pushback is not the most"),
        pytest.param(POLICY, 1, PUSHED_BACK, 0.3, 0.0, None, id="pushback outlasts the deadline"),
        pytest.param(POLICY, 1, ResourceExhaustedError("full"), 9.0, 0.5, None, id="no pushback"),
        pytest.param(POLICY, 1, UnavailableError("never"), 9.0, 0.5, None, id="refused"),
        pytest.param(POLICY, 1, InternalError("bug"), 9.0, 0.5, None, id="another code"),
        pytest.param(RetryPolicy(max_attempts=2), 1, DOWN, 9.0, 0.0, 0.0, id="one try left"),
        pytest.param(RetryPolicy(max_attempts=2), 2, DOWN, 9.0, 0.0, None, id="no try left"),
        pytest.param(POLICY, 1, DOWN, math.inf, 1.0, 0.1, id="no deadline"),
    ],
)
def test_decision(
    *,
    policy: RetryPolicy,
    attempts: int,
    error: LosswireError,
    remaining: float,
    draw: float,
    expected: float | None,
) -> None:
    """The wait follows from policy, tries made, error, time left and one random number."""
    actual = delay_before_retry(policy, attempts, error, remaining, lambda: draw)
    assert actual == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "settings",
    [
        {"initial_backoff": 0},
        {"initial_backoff": 3.0},
        {"max_backoff": math.inf},
        {"multiplier": 0.5},
        {"multiplier": math.nan},
        {"max_attempts": 0},
    ],
    ids=str,
)
def test_impossible_policy(settings: dict[str, Any]) -> None:
    """Settings out of range are ValueError."""
    with pytest.raises(ValueError, match="RetryPolicy: expected"):
        RetryPolicy(**settings)


class Flaky(Scripted):
    """Fails the first calls in one way, then echoes."""

    def __init__(
        self,
        failures: int,
        code: grpc.StatusCode,
        *,
        message: str = "no",
        details: Sequence[Message] = (),
        metadata: Sequence[tuple[str, str | bytes]] = (),
    ) -> None:
        super().__init__(self._script)
        self.failures = failures
        self._how = (code, message, details, metadata)

    def _script(
        self, evaluation: evaluation_pb2.Evaluation, context: grpc.ServicerContext
    ) -> evaluation_pb2.EvaluationResult:
        if len(self.evaluations) <= self.failures:
            code, message, details, metadata = self._how
            fail(context, code, message, details=details, metadata=metadata)
        return echo(evaluation)


@pytest.mark.parametrize(
    "service",
    [
        pytest.param(Flaky(3, UNAVAILABLE), id="UNAVAILABLE"),
        pytest.param(Flaky(2, EXHAUSTED, details=[retry_info(0.01)]), id="RetryInfo"),
        pytest.param(Flaky(2, EXHAUSTED, details=[retry_info(0)]), id="RetryInfo of 0"),
        pytest.param(
            Flaky(2, EXHAUSTED, metadata=[("grpc-retry-pushback-ms", "10")]), id="pushback"
        ),
        pytest.param(Flaky(2, grpc.StatusCode.CANCELLED), id="CANCELLED"),
        pytest.param(Flaky(2, grpc.StatusCode.INTERNAL, message=RESET), id="reset"),
        pytest.param(Flaky(2, EXHAUSTED, message=RESET), id="calmed"),
        pytest.param(
            Flaky(2, grpc.StatusCode.UNKNOWN, message="Stream removed"), id="Stream removed"
        ),
        pytest.param(Flaky(2, grpc.StatusCode.DEADLINE_EXCEEDED), id="DEADLINE_EXCEEDED"),
    ],
)
def test_tried_again_until_it_succeeds(call: Call, service: Flaky) -> None:
    """Calls that may succeed later are tried again, without a word to the caller."""
    service.evaluations.clear()
    with serving(service):
        result = call(service.address, "evaluate", "any", {"x": [1.0]})
    assert float(result.loss) == 1.0
    assert len(service.evaluations) == service.failures + 1


@pytest.mark.parametrize(
    "service",
    [
        pytest.param(Flaky(9, grpc.StatusCode.INVALID_ARGUMENT), id="INVALID_ARGUMENT"),
        pytest.param(Flaky(9, grpc.StatusCode.INTERNAL), id="INTERNAL"),
        pytest.param(
            Flaky(9, grpc.StatusCode.INTERNAL, message=RESET, details=[BUG]), id="with details"
        ),
        pytest.param(
            Flaky(9, grpc.StatusCode.CANCELLED, details=[BUG]), id="CANCELLED with details"
        ),
        pytest.param(Flaky(9, EXHAUSTED), id="no pushback"),
        pytest.param(Flaky(9, EXHAUSTED, metadata=[("grpc-retry-pushback-ms", "-1")]), id="never"),
        pytest.param(Flaky(9, UNAVAILABLE, metadata=[("grpc-retry-pushback-ms", "-1")]), id="nor"),
        pytest.param(
            Flaky(9, grpc.StatusCode.CANCELLED, metadata=[("grpc-retry-pushback-ms", "-1")]),
            id="nor when cancelled",
        ),
        pytest.param(
            Flaky(
                9, grpc.StatusCode.DEADLINE_EXCEEDED, metadata=[("grpc-retry-pushback-ms", "-1")]
            ),
            id="nor when late",
        ),
        pytest.param(Flaky(9, UNAVAILABLE, details=[retry_info(-1)]), id="negative RetryInfo"),
    ],
)
def test_tried_once(call: Call, service: Flaky) -> None:
    """What cannot succeed later, or what the server wants no more of, is not tried again."""
    service.evaluations.clear()
    with serving(service), pytest.raises(LosswireError) as raised:
        call(service.address, "evaluate", "any", {})
    assert not raised.value.retryable
    assert raised.value.retry_after is None
    assert len(service.evaluations) == 1


def test_the_pushback_is_waited_for(call: Call) -> None:
    """The next try comes no sooner than the server asked."""
    service = Flaky(1, EXHAUSTED, details=[retry_info(0.3)])
    with serving(service):
        started = time.monotonic()
        call(service.address, "evaluate", "any", {})
    assert time.monotonic() - started >= 0.3


def test_the_timeout_covers_all_tries(call: Call) -> None:
    """Tries end with the call's timeout, and the last real reason is what is raised."""
    service = Flaky(10**9, UNAVAILABLE)
    with serving(service), pytest.raises(UnavailableError):
        call(service.address, "evaluate", "any", {}, timeout=0.5)
    assert len(service.evaluations) > 1


@pytest.mark.parametrize("failed_before", [False, True])
def test_a_try_cut_short_does_not_hide_the_reason(*, failed_before: bool) -> None:
    """When the timeout ends a later try, the failure before it is raised; a first try's own is."""
    rotation = Rotation(["one"])
    rotation.note_answer(0)
    attempts = Attempts(RetryPolicy(initial_backoff=1e-6), rotation, timeout=0.1)
    attempts.start()
    reason: LosswireError = UnavailableError("away", retryable=True)
    if failed_before:
        attempts.wait_after(reason)
        attempts.start()
    time.sleep(attempts.remaining())
    too_late = DeadlineExceededError("too late")
    with pytest.raises(LosswireError) as raised:
        attempts.wait_after(too_late)
    assert raised.value is (reason if failed_before else too_late)


def test_a_large_request_is_tried_again(call: Call) -> None:
    """Retries do not depend on the size of the request."""
    service = Flaky(1, UNAVAILABLE)
    with serving(service):
        call(service.address, "evaluate", "any", {"x": [0.0] * 700_000})
    assert len(service.evaluations) == 2


@pytest.mark.parametrize(
    "timeouts",
    [({"timeout": 0.3}, {}), ({}, {"timeout": 0.3}), ({"timeout": 60}, {"timeout": 0.3})],
    ids=["client", "call", "call over client"],
)
def test_an_answer_that_never_comes(
    call: Call, timeouts: tuple[dict[str, float], dict[str, float]]
) -> None:
    """A call ends at its timeout, the client's or its own."""
    released = threading.Event()
    settings, options = timeouts

    def script(
        evaluation: evaluation_pb2.Evaluation, _: grpc.ServicerContext
    ) -> evaluation_pb2.EvaluationResult:
        released.wait(60)
        return echo(evaluation)

    with serving(Scripted(script)) as service:
        with pytest.raises(DeadlineExceededError):
            call(service.address, "evaluate", "any", {}, settings=settings, **options)
        released.set()


@pytest.mark.parametrize("timeout", [0, -1.0, math.nan, math.inf])
def test_impossible_timeouts(call: Call, timeout: float) -> None:
    """A timeout must be greater than 0 and finite, on the client and on the call."""
    with pytest.raises(ValueError, match="timeout: expected"):
        call("127.0.0.1:1", "server_info", timeout=timeout)
    with pytest.raises(ValueError, match="timeout: expected"):
        call("127.0.0.1:1", "server_info", settings={"timeout": timeout})


def test_each_step_of_a_call_has_its_own_tries() -> None:
    """The next step begins on the same target, and is tried as often as the policy allows."""
    policy = RetryPolicy(initial_backoff=1e-6, max_attempts=2)
    attempts = Attempts(policy, Rotation(["one", "other"]), timeout=60)
    away = UnavailableError("away", retryable=True)
    used = []
    for _ in range(3):
        used.append(attempts.start())
        attempts.wait_after(away)
        used.append(attempts.start())
        attempts.pin_target()
    assert all(first != second for first, second in zip(used[::2], used[1::2], strict=True))
    assert all(last == first for last, first in zip(used[1::2], used[2::2], strict=False))
    attempts.start()
    attempts.wait_after(away)
    attempts.start()
    with pytest.raises(UnavailableError):
        attempts.wait_after(away)


def test_attempts_on_one_target_have_the_time_that_is_left() -> None:
    """They end with the call that they belong to, and leave its target alone."""
    attempts = Attempts(RetryPolicy(), Rotation(["a", "b", "c"]), timeout=60)
    other = attempts.on_target(2)
    assert [other.start() for _ in range(3)] == [2, 2, 2]
    assert 0 < other.remaining() <= attempts.remaining() + 1e-3
