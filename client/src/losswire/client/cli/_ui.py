"""`losswire ui`: the console in a browser, of a server or of one that this command starts."""

import argparse
import os
import signal
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final
from urllib.parse import quote, urlsplit

from losswire.client._calls.local import SCHEME, ConsoleServer, open_console
from losswire.client.cli._common import Exit, UsageError, complain, printable, refusals, say

_DESCRIPTION = """\
Open the console in a browser. Without --http a server is started inside of this command, which
only this machine can reach, and ends with it: Ctrl-C. It keeps runs where `losswire-server` does.
With FILE, the page opens `Evaluate` with that file: the server reads it where it is, and serves
it to that page alone."""

_LARGEST_PORT: Final = 65535


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "ui", help="opens the console in a browser", description=_DESCRIPTION
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="a table to evaluate: .parquet, .csv, .npy"
    )
    group = parser.add_argument_group("server")
    group.add_argument(
        "--http",
        metavar="URL",
        help="the HTTP address of a server, as it prints it; default: $LOSSWIRE_HTTP, and without "
        "it a server of its own",
    )
    group.add_argument(
        "--server",
        metavar="local:",
        default=SCHEME,
        help="options of the server that is started, such as 'local:?threads=2&device=cpu'",
    )
    group.add_argument(
        "--port",
        type=_port,
        default=0,
        metavar="N",
        help="the port of the server that is started; default: a free one",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address, open no browser"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> Exit:
    """Open the console of a server that runs, or start one and stay until Ctrl-C."""
    url = arguments.http or ("" if _needs_own(arguments) else os.environ.get("LOSSWIRE_HTTP"))
    if url:
        _refuse_own_server(arguments)
        _show(_address_of(url), arguments)
        return Exit.OK
    file = _readable(arguments.file) if arguments.file else None
    with refusals():
        server = open_console(arguments.server, arguments.port, file)
    # Before the start, which takes seconds: an interruption then ends the server as well.
    with _stopped() as stopped:
        try:
            server.start()
        except RuntimeError as error:
            complain(str(error))
            return Exit.OTHER
        _stay(server, arguments, stopped)
    return Exit.OK


def _needs_own(arguments: argparse.Namespace) -> bool:
    """Return whether the arguments ask for a server of this command's own."""
    return bool(arguments.file or arguments.port or arguments.server != SCHEME)


def _refuse_own_server(arguments: argparse.Namespace) -> None:
    """Raise UsageError for arguments that only a server started here understands."""
    if arguments.file:
        message = (
            f"{arguments.file}: only a server that this command starts can read the file; leave "
            "out --http, or open the console and drop the file there"
        )
        raise UsageError(message)
    for name, given in (("--server", arguments.server != SCHEME), ("--port", arguments.port)):
        if given:
            message = f"{name}: not together with --http, which names a server that runs"
            raise UsageError(message)


def _address_of(url: str) -> str:
    """Return the address of a server's console; UsageError for what is no such address."""
    whole = url if "://" in url else f"http://{url}"
    parts = urlsplit(whole)
    try:
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port
        known = False
    if not known or parts.query or parts.fragment or not whole.isprintable():
        message = f"--http {printable(url)}: expected http://HOST:PORT, as the server prints it"
        raise UsageError(message)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"


def _readable(name: str) -> Path:
    """Return the path of a file; UsageError where it cannot be read."""
    path = Path(name)
    try:
        with path.open("rb"):
            return path.resolve(strict=True)
    except OSError as error:
        message = f"{name}: {error.strerror or error}"
        raise UsageError(message) from error


def _stay(server: ConsoleServer, arguments: argparse.Namespace, stopped: threading.Event) -> None:
    """Show the console, and keep the server until the command is interrupted."""
    try:
        address = f"http://{server.http_address}/"
        if server.file_path:
            address += f"#/evaluate?file={quote(server.file_path, safe='')}"
        _show(address, arguments)
        say(f"gRPC at {server.grpc_address}; Ctrl-C ends both")
        stopped.wait()
    finally:
        server.stop()


def _show(address: str, arguments: argparse.Namespace) -> None:
    """Print the address, and open it."""
    say(f"console at {address}")
    if not arguments.no_browser and not webbrowser.open(address):
        complain("no browser is known here: open the address yourself")


@contextmanager
def _stopped() -> Iterator[threading.Event]:
    """Return an event that SIGINT and SIGTERM set."""
    event = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        event.set()

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _port(text: str) -> int:
    """Read a port; argparse's own error for any other text."""
    if not (text.isascii() and text.isdecimal() and int(text) <= _LARGEST_PORT):
        message = f"{text!r} is not a port"
        raise argparse.ArgumentTypeError(message)
    return int(text)
