"""The page of metrics: its formats, its address, and what refuses to start."""

import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from losswire.summaries.prometheus import CONTENT_TYPE
from tests.support.doors import Doors
from tests.support.process import running_server

_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)
_OPEN_METRICS = "application/openmetrics-text;version=1.0.0"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/html", "text/plain; version=0.0.4"),
        (_OPEN_METRICS, "application/openmetrics-text; version=1.0.0"),
        (_PROTOBUF, CONTENT_TYPE),
        (f"{_PROTOBUF};q=0.7,{_OPEN_METRICS};q=0.6,text/plain;q=0.5", CONTENT_TYPE),
        (f"{_PROTOBUF};q=0.5,{_OPEN_METRICS};q=0.6", "application/openmetrics-text"),
        (f"{_PROTOBUF};q=0", "text/plain; version=0.0.4"),
        (_PROTOBUF.replace("delimited", "text"), "text/plain; version=0.0.4"),
        (f"{_PROTOBUF};q=much", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=new", "application/openmetrics-text"),
        ("application/openmetrics-text; version=1.;escaping", "application/openmetrics-text"),
        (f"application/openmetrics-text;version={'9' * 5000}", "application/openmetrics-text"),
        ("text/plain; version=7.7.7; escaping=x", "text/plain; version=0.0.4"),
        (";;,=;q=,", "text/plain; version=0.0.4"),
    ],
)
def test_the_reader_chooses_the_format(doors: Doors, accept: str, kind: str) -> None:
    """By its Accept header; without one it gets text."""
    content_type, page = doors.page(accept)
    assert content_type.startswith(kind)
    assert b"losswire_ready" in page


def test_open_metrics_is_valid(doors: Doors) -> None:
    """The strict parser reads it to its end."""
    _, page = doors.page(_OPEN_METRICS)
    names = {
        family.name
        for family in text_string_to_metric_families(page.decode())  # type: ignore[no-untyped-call]
    }
    assert {"grpc_server_call_started", "losswire_stage_duration_seconds"} <= names


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--metrics", "0.0.0.0:0"], "--metrics 0.0.0.0:0 can be reached from other machines"),
        (["--metrics", "here"], "--metrics here: expected HOST:PORT"),
        (["--metrics", "unix:/tmp/x"], "--metrics unix:/tmp/x: expected HOST:PORT"),
    ],
)
def test_addresses_that_cannot_be(arguments: list[str], sentence: str) -> None:
    """The program exits with 2 and says which option is wrong."""
    ended = _serve(*arguments)
    assert (ended.returncode, sentence in ended.stderr) == (2, True)


def test_an_address_in_use() -> None:
    """The sentence names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = _serve("--http", "127.0.0.1:0", "--metrics", address)
    assert ended.returncode == 2
    assert f"--metrics {address}: " in ended.stderr


def test_a_public_address_is_allowed_if_meant() -> None:
    """With --allow-insecure."""
    with running_server("--metrics", "0.0.0.0:0", "--allow-insecure") as address:
        assert address


def test_metrics_need_no_http() -> None:
    """Without `--http` there is no door, and nothing else at the address of metrics."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        address = f"127.0.0.1:{bound.getsockname()[1]}"
    with running_server("--metrics", address):
        page = urllib.request.urlopen(f"http://{address}/metrics", timeout=60).read()
        assert b"losswire_ready 1.0" in page
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{address}/v1/losses", timeout=60)


def _serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "losswire.server", "serve", "--device", "cpu"]
    command += ["--listen", "127.0.0.1:0", "--store", "none", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
