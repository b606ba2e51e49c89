"""`losswire ui`: the console of a server that runs, or of one that the command starts."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from losswire.client import Client
from losswire.client.cli import main

SCRIPT = Path(sys.executable).with_name("losswire")

ROWS = b"target,input\n0,1\n1,3\n"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the user's: no server, no runs, and a browser that writes what it opens."""
    monkeypatch.delenv("LOSSWIRE_HTTP", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n', "utf-8")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))


@contextmanager
def running(*words: str) -> Iterator[tuple[str, str]]:
    """Start the command on a port of its own; yield the console's address and the gRPC target.

    An interruption ends it, with status 0 and without a word.
    """
    command = [str(SCRIPT), "ui", "--server", "local:?threads=1&device=cpu", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        try:
            assert it.stdout is not None
            console, grpc = it.stdout.readline(), it.stdout.readline()
            assert console.startswith("console at http://127.0.0.1:"), (console, it.poll())
            assert grpc.endswith("; Ctrl-C ends both\n")
            target = grpc.removeprefix("gRPC at ").partition(";")[0]
            yield console.removeprefix("console at ").strip(), target
        finally:
            it.send_signal(signal.SIGINT)
            out, err = it.communicate(timeout=60)
        assert (it.returncode, out, err) == (0, "", "")


def ask(
    address: str, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> tuple[HTTPResponse, bytes]:
    """Send one request to a host and port."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=60)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """A command that shows a file: the console's address, the path of the file in it, the file."""
    folder = tmp_path_factory.mktemp("ui")
    file = folder / "my predictions.csv"
    file.write_bytes(ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        with running(str(file), "--no-browser") as (address, _):
            found = re.fullmatch(r"(http://\S+?/)#/evaluate\?file=([^&/]+)", address)
            assert found is not None, address
            yield found[1], unquote(found[2]), file


def test_a_server_of_its_own_serves_the_console(tmp_path: Path) -> None:
    """The address is printed and opened; the SDK reaches the same server; Ctrl-C ends all."""
    with running() as (address, target):
        answer, page = ask(address, "/")
        assert (answer.status, b"<title>Losswire" in page) == (200, True)
        assert (tmp_path / "opened").read_text("utf-8") == f"{address}\n"
        with Client(target) as client:
            assert client.server_info().threads == 1
    with pytest.raises(ConnectionRefusedError):
        ask(address, "/")
    assert (tmp_path / "state").exists(), "runs are kept where losswire-server keeps them"


def test_the_file_is_read_where_it_is(opened: tuple[str, str, Path]) -> None:
    """By the path in the page's address, with a name and a length."""
    address, path, file = opened
    assert path.endswith("/my%20predictions.csv")
    answer, body = ask(address, path)
    assert (answer.status, body) == (200, ROWS)
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    answer, body = ask(address, path, method="HEAD")
    assert (answer.headers["Content-Length"], body) == (str(len(ROWS)), b"")
    file.write_bytes(ROWS + b"1,0\n")
    try:
        assert ask(address, path)[1] == ROWS + b"1,0\n"
    finally:
        file.write_bytes(ROWS)


RANGES: Mapping[str, tuple[int, bytes, str | None]] = {
    "bytes=0-5": (206, ROWS[:6], "bytes 0-5/21"),
    "bytes=13-": (206, ROWS[13:], "bytes 13-20/21"),
    "bytes=-4": (206, ROWS[-4:], "bytes 17-20/21"),
    "bytes=-100": (206, ROWS, "bytes 0-20/21"),
    "bytes=0-100": (206, ROWS, "bytes 0-20/21"),
    "bytes=21-": (416, b"", "bytes */21"),
    "bytes=-0": (416, b"", "bytes */21"),
    "bytes=5-2": (200, ROWS, None),
    "bytes=-": (200, ROWS, None),
    "bytes=0-1,3-4": (200, ROWS, None),
    "lines=0-1": (200, ROWS, None),
}


@pytest.mark.parametrize("asked", RANGES)
def test_ranges(opened: tuple[str, str, Path], asked: str) -> None:
    """A single range is sent alone; one that the file does not have is refused."""
    address, path, _ = opened
    answer, body = ask(address, path, {"Range": asked})
    assert (answer.status, body, answer.headers["Content-Range"]) == RANGES[asked]


def test_nothing_else_is_read(opened: tuple[str, str, Path]) -> None:
    """Not with another token or name, and not by a page of another host."""
    address, path, _ = opened
    _, _, token, name = path.split("/")
    assert len(token) == 43
    other = token[:-1] + ("A" if token[-1] != "A" else "B")
    for wrong in (
        f"/files/{other}/{name}",
        f"/files//{name}",
        f"/files/{token}/other.csv",
        f"/files/{token}/..%2f..%2fetc%2fpasswd",
        f"/files/{token}",
        f"/files/%ff/{name}",
        "/files",
    ):
        assert ask(address, wrong)[0].status == 404, wrong
    for site in ("cross-site", "same-site"):
        assert ask(address, path, {"Sec-Fetch-Site": site})[0].status == 404
    assert ask(address, path, {"Sec-Fetch-Site": "same-origin"})[0].status == 200
    assert ask(address, path, method="POST")[0].status == 405


def test_the_server_that_the_environment_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its console is opened, and the command ends."""
    monkeypatch.setenv("LOSSWIRE_HTTP", "losses.example:8080")
    assert main(["ui", "--no-browser"]) == 0
    assert main(["ui", "--no-browser", "--http", "https://other.example/losswire/"]) == 0
    assert capsys.readouterr().out == (
        "console at http://losses.example:8080/\nconsole at https://other.example/losswire/\n"
    )
    assert not (tmp_path / "opened").exists()


WRONG: Mapping[str, tuple[tuple[str, ...], str]] = {
    "no such file": (("missing.csv",), "missing.csv: No such file or directory"),
    "a folder": (("/tmp",), "/tmp: Is a directory"),  # noqa: S108 (it is only looked at)
    "a file for another server": (
        ("missing.csv", "--http", "h:1"),
        (
            "missing.csv: only a server that this command starts can read the file; leave out "
            "--http, or open the console and drop the file there"
        ),
    ),
    "two servers": (
        ("--http", "h:1", "--port", "8080"),
        "--port: not together with --http, which names a server that runs",
    ),
    "a gRPC target": (
        ("--server", "127.0.0.1:50051"),
        (
            "--server 127.0.0.1:50051: the console of a server that runs is at its HTTP address, "
            "which --http names; --server takes local: or local:?threads=N&device=D"
        ),
    ),
    "an unknown option": (
        ("--server", "local:?thread=1"),
        "target: local: has no option 'thread'; it has device and threads",
    ),
    "no address": (
        ("--http", "ftp://h"),
        "--http ftp://h: expected http://HOST:PORT, as the server prints it",
    ),
    "no port": (
        ("--http", "http://h:x"),
        "--http http://h:x: expected http://HOST:PORT, as the server prints it",
    ),
    "a port beyond all": (
        ("--port", "65536"),
        "argument --port: '65536' is not a port (see `losswire ui --help`)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says what to do instead; nothing is started."""
    words, message = WRONG[case]
    assert main(["ui", "--no-browser", *words]) == 2
    assert capsys.readouterr().err == f"losswire: {message}\n"


def test_without_the_service(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what to install, or to name a server."""
    monkeypatch.setattr("losswire.client._calls.local.entry_points", lambda group: group[:0])
    assert main(["ui", "--no-browser"]) == 2
    assert capsys.readouterr().err == (
        "losswire: the console is served by the service, which is not installed beside the SDK: "
        "pip install losswire-server, or name a server that runs by --http http://HOST:PORT\n"
    )


def test_a_port_in_use(opened: tuple[str, str, Path]) -> None:
    """The server does not start, and the line says why."""
    port = str(urlsplit(opened[0]).port)
    ran = subprocess.run(
        [str(SCRIPT), "ui", "--no-browser", "--port", port],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert (ran.returncode, ran.stdout) == (4, "")
    assert f"--http 127.0.0.1:{port}: " in ran.stderr
    assert "another program does already" in ran.stderr
