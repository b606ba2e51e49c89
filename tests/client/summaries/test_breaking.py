"""The way of a data set to the server: breaking, continuing, waiting."""

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from losswire.client import (
    CancelledError,
    Client,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    LosswireError,
    RetryPolicy,
    Summary,
    UnavailableError,
)
from losswire.wire import decode_tensor
from tests.client.conftest import Call
from tests.support.ragged import BATCHES, FIELDS, ROWS
from tests.support.scripted import serving
from tests.support.scripted_summaries import Fault, FaultKind, Summarizing

_QUICK = {"retry": RetryPolicy(initial_backoff=0.001, max_backoff=0.01)}


@pytest.fixture(scope="module")
def expected() -> Summary:
    """The summary of a call that nothing disturbs."""
    with serving(Summarizing()) as service, Client(service.address) as client:
        return client.summarize("mse_loss", BATCHES, **FIELDS)


_FAULTS: Mapping[str, Mapping[int, Fault]] = {
    "killed": {0: Fault("abort", 7)},
    "drained": {0: Fault("drain", 7)},
    "killed again and again": {call: Fault("abort", call % 4) for call in range(9)},
    "drained after each batch": {call: Fault("drain", 1) for call in range(20)},
    "killed at the end": {0: Fault("abort", 10**6), 1: Fault("abort", 10**6)},
    "drained at the end": {0: Fault("drain", 10**6)},
}


@pytest.mark.parametrize("faults", _FAULTS.values(), ids=_FAULTS)
def test_no_batch_is_lost_or_counted_twice(
    call: Call, expected: Summary, faults: Mapping[int, Fault]
) -> None:
    """Whatever breaks, the summary is that of an undisturbed call, down to its bits."""
    with serving(Summarizing(faults=faults)) as service:
        found = call(service.address, "summarize", "mse_loss", BATCHES, settings=_QUICK, **FIELDS)
    assert found == expected
    assert len(service.headers) == len(faults) + 1


def test_a_call_continues_on_another_server(call: Call, expected: Summary) -> None:
    """One that has just failed is left alone while there are others."""
    with (
        serving(Summarizing(faults={0: Fault("abort", 4)})) as first,
        serving(Summarizing()) as second,
    ):
        found = call(
            f"{first.address},{second.address}", "summarize", "mse_loss", BATCHES, **FIELDS
        )
    assert found == expected
    assert [len(first.headers), len(second.headers)] == [1, 1]


def test_tries_without_progress_end(call: Call) -> None:
    """A server that breaks each call before a report is given up as the policy says."""
    faults = {each: Fault("abort", 0) for each in range(50)}
    policy = RetryPolicy(initial_backoff=0.001, max_backoff=0.002, max_attempts=3)
    with serving(Summarizing(faults=faults)) as service, pytest.raises(UnavailableError):
        call(service.address, "summarize", "mse_loss", BATCHES, settings={"retry": policy})
    assert len(service.headers) == 3


def test_tries_are_counted_from_the_last_report(call: Call, expected: Summary) -> None:
    """Failures with progress between them are no reason to give up."""
    faults = {each: Fault("drain", 1) for each in range(10)}
    policy = RetryPolicy(initial_backoff=0.001, max_backoff=0.002, max_attempts=2)
    with serving(Summarizing(faults=faults)) as service:
        found = call(
            service.address,
            "summarize",
            "mse_loss",
            BATCHES,
            settings={"retry": policy},
            **FIELDS,
        )
    assert found == expected


def test_a_call_that_does_not_move_is_given_up(call: Call) -> None:
    """After the timeout without an answer."""
    with serving(Summarizing(faults={0: Fault("hang", 2)})) as service:
        with pytest.raises(DeadlineExceededError, match=r"not moved for 0\.3 s"):
            call(service.address, "summarize", "mse_loss", BATCHES, timeout=0.3)
        service.released.set()


def test_the_timeout_is_not_for_the_whole(call: Call) -> None:
    """Data that takes its time is no reason to give up, even if the server breaks meanwhile."""

    def slow() -> Iterator[dict[str, Any]]:
        for batch in BATCHES[:3]:
            time.sleep(0.4)
            yield batch

    with serving(Summarizing(faults={0: Fault("abort", 1), 1: Fault("abort", 1)})) as service:
        found = call(service.address, "summarize", "mse_loss", slow(), timeout=0.3)
    assert found.count == sum(ROWS[:3])


def test_a_server_need_not_wait_for_the_data(call: Call, expected: Summary) -> None:
    """One that gives up is called again: when there is more, and while there is time left."""

    def slow() -> Iterator[dict[str, Any]]:
        for number, batch in enumerate(BATCHES):
            time.sleep(1.1 if number == 2 else 0)
            yield batch

    fault = {0: Fault("expire", 5)}
    with serving(Summarizing(faults=fault)) as service:
        assert call(service.address, "summarize", "mse_loss", slow(), **FIELDS) == expected
    with serving(Summarizing(faults=fault)) as service:
        assert call(service.address, "summarize", "mse_loss", BATCHES, **FIELDS) == expected


@pytest.mark.parametrize(
    ("fault", "error"), [("refuse", InvalidArgumentError), ("end", InternalError)]
)
def test_other_errors_are_raised(call: Call, fault: FaultKind, error: type[LosswireError]) -> None:
    """Nothing is tried again that would fail again."""
    with serving(Summarizing(faults={0: Fault(fault, 3)})) as service:
        with pytest.raises(error):
            call(service.address, "summarize", "mse_loss", BATCHES)
        assert len(service.headers) == 1


def test_reports_are_states_to_continue_from(call: Call, expected: Summary) -> None:
    """A summary that was cut off is continued from what `on_report` got, by the same key."""
    saved: list[Summary] = []

    def cut_off() -> Iterator[dict[str, Any]]:
        for batch in BATCHES:
            yield batch
            time.sleep(0.1)
            if saved:
                raise KeyboardInterrupt

    with serving(Summarizing(faults={0: Fault("drain", 9)})) as service:
        with pytest.raises(KeyboardInterrupt):
            call(
                service.address,
                "summarize",
                "mse_loss",
                cut_off(),
                on_report=saved.append,
                settings=_QUICK,
                **FIELDS,
            )
        assert 0 < saved[-1].count < sum(ROWS)
        service.batches.clear()
        found = call(
            service.address, "summarize", "mse_loss", BATCHES, resume_from=saved[-1], **FIELDS
        )
    assert found == expected
    sent = sum(decode_tensor(each.inputs["input"]).size for each in service.batches)
    assert sent == sum(ROWS) - saved[-1].rows


def test_what_is_covered_is_not_sent_again(call: Call, expected: Summary) -> None:
    """A complete summary is continued by nothing."""
    with serving(Summarizing()) as service:
        found = call(
            service.address, "summarize", "mse_loss", BATCHES, resume_from=expected, **FIELDS
        )
    assert found == expected
    assert service.batches == []


def test_continuing_takes_a_key(call: Call, expected: Summary) -> None:
    """Without one nobody knows which rows are counted already."""
    with (
        serving(Summarizing()) as service,
        pytest.raises(ValueError, match="partition: resume_from"),
    ):
        call(
            service.address,
            "summarize",
            "mse_loss",
            BATCHES,
            resume_from=expected,
            **{**FIELDS, "partition": None},
        )


def test_a_summary_too_large_to_be_continued_is_merged(expected: Summary) -> None:
    """The server then begins anew, and the client adds up."""
    faults = {0: Fault("drain", 10)}
    large = [{**each, "country": each["id"]} for each in BATCHES]
    with (
        serving(Summarizing(faults=faults)) as service,
        Client(service.address) as client,
    ):
        found = client.summarize("mse_loss", large, **FIELDS)
    assert [each.HasField("resume_from") for each in service.headers] == [False, False]
    assert service.headers[1].first_row > 0
    assert found.included == expected.included
    assert found.count == expected.count
    assert found.mean == pytest.approx(expected.mean, rel=1e-12)
    ours, theirs = (
        each.message.total.distributions[0].sketch.positive_indices for each in (found, expected)
    )
    assert ours == theirs


def test_closing_the_client_ends_the_call() -> None:
    """From another thread, with CancelledError."""
    with serving(Summarizing(faults={0: Fault("hang", 2)})) as service:
        client = Client(service.address)

        def close() -> None:
            while not service.batches:
                time.sleep(0.01)
            client.close()

        thread = threading.Thread(target=close)
        thread.start()
        with pytest.raises(CancelledError, match="closed"):
            client.summarize("mse_loss", BATCHES)
        thread.join()
        service.released.set()
