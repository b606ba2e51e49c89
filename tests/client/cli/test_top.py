"""`losswire top`: what a server says it does, and what is said when it says nothing."""

import json
import os
import pty
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest

from losswire.client import Client, LosswireError
from tests.client.cli.conftest import Run
from tests.support.doors import Doors, open_doors

BOUNDS = (0.001, 0.01, 0.1, "Infinity")


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    """A server with HTTP."""
    with open_doors() as opened:
        yield opened


def histogram(*counts: int) -> dict[str, Any]:
    """Return a histogram with the counts of its buckets, which add up."""
    total = np.cumsum([*counts, *[0] * (len(BOUNDS) - len(counts))]).tolist()
    return {"buckets": [list(each) for each in zip(BOUNDS, total, strict=True)], "count": total[-1]}


def live(calls: Sequence[tuple[str, str, dict[str, Any]]], **fields: Any) -> dict[str, Any]:  # noqa: ANN401 (any JSON)
    """Return an answer of /v1/live."""
    return {
        "worker_id": "abc",
        "server_version": "9.9",
        "uptime_seconds": 7300.0,
        "ready": True,
        "calls": [
            {"transport": "grpc", "method": method, "code": code, **each}
            for method, code, each in calls
        ],
        "reserved_bytes": {"compute": 1 << 30, "regions": 1 << 30, "residents": 0},
        "budget_bytes": 4 << 30,
        "quota_bytes": {"regions": 2 << 30, "residents": 0},
        "queue": {"oldest_seconds": 0.25, "length": 1234},
        "batch_sizes": histogram(),
        "stages": {"queue": histogram()},
        "refusals": [],
        "recent_refusals": [],
        "device": {"name": "cpu", "memory_bytes": 100, "memory_reserved_bytes": 50},
        "workers": [{"id": "abc", "started": "2026-01-01T00:00:00+00:00", "ready": True}],
        **fields,
    }


@contextmanager
def serving(answers: Sequence[Any], status: int = 200) -> Iterator[str]:
    """Answer each request with the next of some bodies, the last one again; yields the URL."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = left.pop(0) if len(left) > 1 else left[0]
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
            """Do nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def top(losswire: Run, answers: Sequence[Any], *words: str) -> Any:  # noqa: ANN401 (as above)
    """Run the command against answers; returns the figures of `--json`."""
    with serving(answers) as url:
        ran = losswire("top", url, "--json", "--interval", "0.05", *words)
    assert (ran.status, ran.err) == (0, "")
    return json.loads(ran.out)


def test_a_real_server(losswire: Run, doors: Doors) -> None:
    """Calls that were made are in the table, with their statuses and totals; refusals too."""
    inputs = {"input": np.zeros((2, 3), np.float32), "target": np.array([0, 1])}
    with Client(doors.grpc) as client:
        for _ in range(7):
            client.evaluate("cross_entropy", inputs)
        with pytest.raises(LosswireError):
            client.evaluate("nothing\x1b[31m", inputs)
    ran = losswire("top", doors.http, "--interval", "0.1")
    assert (ran.status, ran.err) == (0, "")
    assert f"http://{doors.http}   READY" in ran.out
    assert "LossService/Evaluate" in ran.out
    assert "UNKNOWN_LOSS: there is no loss" in ran.out
    assert "\x1b" not in ran.out
    facts = json.loads(losswire("top", doors.http, "--json", "--interval", "0.1").out)
    totals = {
        each["code"]: each["total"] for each in facts["calls"] if "/Evaluate" in each["method"]
    }
    assert totals == {"OK": 7, "NOT_FOUND": 1}
    assert facts["refusals"]["UNKNOWN_LOSS"]["total"] == 1


def test_rates_are_of_the_time_between_two_answers(losswire: Run) -> None:
    """Counts of before do not matter, nor do quantiles of calls that ended before."""
    old = live([("Evaluate", "OK", histogram(1000)), ("Evaluate", "INTERNAL", histogram(5))])
    new = live(
        [("Evaluate", "OK", histogram(1000, 10, 10)), ("Evaluate", "INTERNAL", histogram(6))]
    )
    facts = top(losswire, [old, new])
    fine, failed = facts["calls"]
    assert (fine["total"], failed["total"]) == (1020, 6)
    assert fine["per_second"] * facts["seconds"] == pytest.approx(20)
    assert facts["failed_per_second"] * facts["seconds"] == pytest.approx(1)
    assert fine["p50"] == pytest.approx(0.01)
    assert fine["p99"] == pytest.approx(0.01 + 0.09 * 0.98)


@pytest.mark.parametrize(
    ("counts", "p50"),
    [((10,), 0.0005), ((0, 10), 0.0055), ((0, 0, 0, 5), 0.1), ((0,), None)],
)
def test_quantiles_lie_between_the_bounds_of_a_bucket(
    losswire: Run, counts: tuple[int, ...], p50: float | None
) -> None:
    """Beyond the last finite bound it is that bound; of nothing there is none."""
    facts = top(
        losswire, [live([("E", "OK", histogram(0))]), live([("E", "OK", histogram(*counts))])]
    )
    assert facts["calls"][0]["p50"] == (None if p50 is None else pytest.approx(p50))


def test_a_worker_that_was_restarted(losswire: Run) -> None:
    """Counts that begin anew are no negative rates."""
    old = live([("E", "OK", histogram(1000))])
    new = live([("E", "OK", histogram(20))], worker_id="def", uptime_seconds=10.0)
    facts = top(losswire, [old, new])
    assert facts["calls"][0]["per_second"] == 2
    with serving([old, new]) as url:
        assert "restarted 1 x" in losswire("top", url, "--once", "--interval", "0.01").out


def test_the_screen_in_words(losswire: Run) -> None:
    """Bars, sizes, times and large numbers as people read them."""
    calls = [("losswire.v1.LossService/Evaluate", "OK", histogram(1000))]
    with serving([live(calls)]) as url:
        out = losswire("top", url, "--once", "--interval", "0.01").out
    assert f"losswire-server 9.9   {url}   READY   up 2 h 1 min" in out
    assert "waiting 1,234, the oldest 250 ms" in out
    assert "budget         [############............]  50%  2.0 GiB of 4.0 GiB" in out
    assert "- regions      [############............]  50%  1.0 GiB of 2.0 GiB" in out
    assert "residents      [........................]   0%  0 B of 0 B" in out
    assert "LossService/Evaluate  OK      0        -    -    1,000" in out
    assert "no refusals" in out


def test_no_answer_in_time(losswire: Run) -> None:
    """A server that accepts and says nothing is given up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        ran = losswire("top", url, "--once", "--timeout", "0.2")
    assert (ran.status, ran.err) == (3, f"losswire: {url}: no answer within 0.2 s\n")


def test_nobody_listens(losswire: Run) -> None:
    """The line says how a door is opened."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        address = f"127.0.0.1:{bound.getsockname()[1]}"
    ran = losswire("top", address)
    assert ran.status == 3
    assert f"no HTTP door there (Connection refused); `losswire-server serve --http {address}`" in (
        ran.err
    )


def test_the_port_of_grpc(losswire: Run, doors: Doors) -> None:
    """It does not speak HTTP/1.1."""
    ran = losswire("top", doors.grpc)
    assert (ran.status, "has a port of its own, beside that of gRPC" in ran.err) == (3, True)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"<html>", 200, "this is no Losswire server"),
        ({"other": 1}, 200, "this is no Losswire server"),
        ([1], 200, "this is no Losswire server"),
        (b"gone", 404, "it answers 404 to /v1/live: this is no Losswire server, or an older one"),
        ({"detail": "no credential"}, 401, "it answers 401 to /v1/live: no credential"),
    ],
)
def test_other_servers(losswire: Run, body: object, status: int, text: str) -> None:
    """Something else that speaks HTTP is told from a server of ours."""
    with serving([body], status) as url:
        ran = losswire("top", url, "--once")
    assert (ran.status, text in ran.err) == (4, True)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://h:x", "http://h:70000", "h?x=1"])
def test_addresses_that_are_none(losswire: Run, url: str) -> None:
    """The line repeats what was written."""
    ran = losswire("top", url)
    assert (ran.status, ran.err) == (
        2,
        f"losswire: URL: {url!r} is not an address such as http://127.0.0.1:8080\n",
    )


def test_the_screen_until_q(doors: Doors) -> None:
    """On a terminal it is drawn until `q`, and the terminal is given back as it was."""
    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "losswire.client.cli", "top", doors.http, "--interval", "0.05"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "COLUMNS": "60", "LINES": "12"},
    )
    os.close(terminal)
    seen = b""
    end = time.monotonic() + 60
    while seen.count(b"\x1b[H") < 3 and time.monotonic() < end:
        seen += _read(control)
    os.write(control, b"q")
    while process.poll() is None and time.monotonic() < end:
        seen += _read(control)
    seen += _read(control)
    os.close(control)
    assert process.wait(60) == 0
    assert seen.startswith(b"\x1b[?1049h")
    assert seen.rstrip().endswith(b"\x1b[?25h\x1b[?1049l")
    assert b"READY" in seen


def _read(descriptor: int) -> bytes:
    """Return what comes within a moment; nothing at the end."""
    ready, _, _ = select.select([descriptor], [], [], 0.1)
    try:
        return os.read(descriptor, 1 << 16) if ready else b""
    except OSError:
        return b""
