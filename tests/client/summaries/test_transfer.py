"""The way of a data set to the server: cutting, callbacks, keys, mistakes."""

import asyncio
import io
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from losswire.client import (
    AsyncClient,
    Client,
    InvalidArgumentError,
    ResourceExhaustedError,
    Summary,
    SummaryProgress,
    UnavailableError,
)
from losswire.wire import decode_tensor
from tests.client.conftest import Call
from tests.support.ragged import BATCHES, FIELDS, ROWS
from tests.support.scripted import serving
from tests.support.scripted_summaries import Fault, Summarizing


@pytest.fixture(scope="module")
def expected() -> Summary:
    """The summary of a call that nothing disturbs."""
    with serving(Summarizing()) as service, Client(service.address) as client:
        return client.summarize("mse_loss", BATCHES, **FIELDS)


def test_batches_of_any_size_are_cut(call: Call) -> None:
    """Messages are of about the size that the server prefers, and every row is in one of them."""
    with serving(Summarizing()) as service:
        summary: Summary = call(service.address, "summarize", "mse_loss", BATCHES, **FIELDS)
    values = np.concatenate([each["input"] for each in BATCHES]).astype(float) ** 2
    weights = np.concatenate([each["w"] for each in BATCHES])
    assert summary.count == sum(ROWS)
    assert summary.mean == pytest.approx(np.average(values, weights=weights), rel=1e-12)
    assert summary.included == {"data": [(0, sum(ROWS))]}
    assert summary.worst[0].id == f"row {values.argmax()}"
    assert summary.slices["country"]["PL"].count == sum(rows // 3 for rows in ROWS)
    sent = [decode_tensor(each.inputs["input"]) for each in service.batches]
    assert len(sent) > 2 * len(ROWS)
    assert max(each.size for each in sent) < 200
    np.testing.assert_array_equal(
        np.concatenate(sent), np.concatenate([each["input"] for each in BATCHES])
    )


def test_a_loss_that_couples_rows_gets_whole_batches(call: Call) -> None:
    """They are sent as they are, in one message each."""
    with serving(Summarizing()) as service:
        call(service.address, "summarize", "coupled_loss", BATCHES)
    assert [decode_tensor(each.inputs["input"]).size for each in service.batches] == list(ROWS)


def test_an_unknown_loss_is_refused_by_the_server(call: Call) -> None:
    """Before any data is read."""

    def never() -> Iterator[dict[str, Any]]:
        raise AssertionError
        yield {}

    refusing = Summarizing(faults={0: Fault("refuse", 0)})
    with serving(refusing) as service, pytest.raises(InvalidArgumentError):
        call(service.address, "summarize", "no_loss", never())


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("mine"), UnavailableError("mine", retryable=True)]
)
def test_errors_of_the_data_are_raised_unchanged(call: Call, error: Exception) -> None:
    """Even one that looks like the server's."""

    def broken() -> Iterator[dict[str, Any]]:
        yield from BATCHES[:3]
        raise error

    with serving(Summarizing()) as service:
        with pytest.raises(type(error)) as raised:
            call(service.address, "summarize", "mse_loss", broken())
        assert raised.value is error
        assert len(service.headers) <= 1


@pytest.mark.parametrize("callback", ["progress", "on_report"])
def test_errors_of_callbacks_are_raised_unchanged(call: Call, callback: str) -> None:
    """They end the call."""

    def stop(found: object) -> None:
        raise ZeroDivisionError(type(found).__name__)

    with serving(Summarizing()) as service, pytest.raises(ZeroDivisionError, match="Summary"):
        call(service.address, "summarize", "mse_loss", BATCHES, **{callback: stop})


def test_progress_is_told(call: Call) -> None:
    """Rows grow up to all of them; the total is known where the data says it."""
    seen: list[SummaryProgress] = []
    whole = {"input": np.arange(500, dtype=np.float32), "target": np.zeros(500, np.float32)}
    with serving(Summarizing()) as service:
        summary = call(service.address, "summarize", "mse_loss", whole, progress=seen.append)
    rows = [each.rows for each in seen]
    assert rows == sorted(rows)
    assert (rows[-1], seen[-1].total_rows, seen[-1].remaining_seconds) == (500, 500, 0)
    assert seen[-1].means[0] == pytest.approx(summary.mean)
    assert seen[-1].standard_errors[0] == pytest.approx(summary.standard_error)
    assert str(seen[-1]).startswith("500 of 500 rows · ")


def test_no_rows_have_a_summary(call: Call) -> None:
    """Its mean is NaN."""
    with serving(Summarizing()) as service:
        found = call(service.address, "summarize", "mse_loss", [])
    assert (found.count, found.included) == (0, {})
    assert np.isnan(found.mean)


def test_each_call_has_a_key_of_its_own(call: Call) -> None:
    """So a summary is not merged with itself."""
    with serving(Summarizing()) as service:
        one, other = (call(service.address, "summarize", "mse_loss", BATCHES[:1]) for _ in range(2))
    assert Summary.merge([one, other]).count == 2 * ROWS[0]
    with pytest.raises(ValueError, match="counted twice"):
        Summary.merge([one, one])


def test_a_batch_that_fits_no_message_is_refused(call: Call) -> None:
    """If it cannot be cut."""
    large = {"input": np.zeros(50_000, np.float32), "target": np.zeros(50_000, np.float32)}
    text = "at most 100000 bytes"
    with serving(Summarizing()) as service, pytest.raises(ResourceExhaustedError, match=text):
        call(service.address, "summarize", "coupled_loss", [large])


def test_long_ids_make_messages_of_fewer_rows(call: Call) -> None:
    """The limit of a message holds for its texts, too."""
    ids = [f"{each:0>1000}" for each in range(400)]
    batch = {"input": np.zeros(400, np.float32), "target": np.ones(400, np.float32), "id": ids}
    with serving(Summarizing()) as service:
        found = call(service.address, "summarize", "mse_loss", [batch], ids="id")
    assert found.count == 400
    assert max(each.ByteSize() for each in service.batches) <= 100_000


def test_the_data_may_be_asynchronous(expected: Summary) -> None:
    """It is read on the event loop."""
    threads = []

    async def read() -> AsyncIterator[dict[str, Any]]:
        for batch in BATCHES:
            await asyncio.sleep(0)
            threads.append(threading.current_thread())
            yield batch

    async def run(address: str) -> Summary:
        async with AsyncClient(address) as client:
            return await client.summarize("mse_loss", read(), **FIELDS)

    with serving(Summarizing()) as service:
        assert asyncio.run(run(service.address)) == expected
    assert set(threads) == {threading.current_thread()}


def test_a_task_that_waits_for_data_can_be_cancelled() -> None:
    """Though another thread waits for that data."""

    async def read() -> AsyncIterator[dict[str, Any]]:
        yield BATCHES[0]
        await asyncio.sleep(100)

    async def run(address: str) -> None:
        async with AsyncClient(address) as client:
            await asyncio.wait_for(client.summarize("mse_loss", read()), 0.2)

    with serving(Summarizing()) as service, pytest.raises(TimeoutError):
        asyncio.run(run(service.address))


_MISTAKES: Mapping[str, tuple[dict[str, Any], type[Exception], str]] = {
    "slices as a text": ({"slices": "country"}, TypeError, r'slices: .* \["country"\]'),
    "unknown overflow": ({"overflow": "drop"}, ValueError, "overflow"),
    "progress of another kind": ({"progress": 3}, TypeError, "progress"),
    "negative worst": ({"worst": -1}, ValueError, "worst"),
    "worst beyond int32": ({"worst": 1 << 31}, ValueError, "worst: .* int32"),
    "max_slices beyond int32": ({"max_slices": 1 << 40}, ValueError, "max_slices: .* int32"),
    "partition of another kind": ({"partition": 5}, TypeError, "partition: expected a text"),
    "accuracy of another kind": ({"accuracy": "1 %"}, TypeError, "accuracy: expected a number"),
    "no such column": ({"slices": ["contry"]}, ValueError, "contry.*country"),
    "no such argument": ({"slice": ["c"]}, TypeError, "no argument 'slice'; nearest: slices"),
    "an array of weights": ({"sample_weight": np.ones(3)}, TypeError, "sample_weight: .* ndarray"),
    "an array of a slice": ({"slices": [np.ones(3)]}, TypeError, r"slices\[0\]: .* ndarray"),
    "several columns": ({"columns": {"input": ["a", "b"]}}, TypeError, r'columns\["input"\]: '),
    "accuracy in percent": ({"accuracy": "1%"}, TypeError, "accuracy: .* 0.01"),
    "no such input": ({"columns": {"inputt": "input"}}, ValueError, "inputt"),
}


@pytest.mark.parametrize("case", _MISTAKES)
def test_mistakes_are_named(call: Call, case: str) -> None:
    """Before anything is sent."""
    fields, error, text = _MISTAKES[case]
    with serving(Summarizing()) as service, pytest.raises(error, match=text):
        call(service.address, "summarize", "mse_loss", BATCHES, **fields)
    assert service.batches == []


@pytest.mark.parametrize(("candidates", "error"), [({}, ValueError), (None, TypeError)])
def test_a_comparison_of_nothing_is_refused(
    call: Call, candidates: object, error: type[Exception]
) -> None:
    """Before anything is sent, instead of a summary that is no comparison."""
    with serving(Summarizing()) as service, pytest.raises(error, match="candidates: "):
        call(service.address, "compare", "mse_loss", BATCHES, candidates=candidates)
    assert service.batches == []


def test_people_see_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, written over, with the last state kept; elsewhere nothing."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with serving(Summarizing()) as service, Client(service.address) as client:
        monkeypatch.setattr(sys, "stderr", written := Terminal())
        client.summarize("mse_loss", BATCHES, progress=True)
        monkeypatch.setattr(sys, "stderr", piped := io.StringIO())
        client.summarize("mse_loss", BATCHES, progress=True)
        monkeypatch.setattr(sys, "stderr", clustered := Terminal())
        documents = [{**each, "document": np.arange(len(each["target"])) // 9} for each in BATCHES]
        client.summarize("mse_loss", documents, progress=True, cluster="document")
    last = written.getvalue().split("\r")[-1]
    assert last.startswith("2,499 rows · ")
    assert " rows/s · mean 0.96" in last
    assert last.endswith("so far\n")
    assert piped.getvalue() == ""
    assert "±" in last
    assert "±" not in clustered.getvalue()
