"""The parts of all commands: the connection to the server, exit statuses, and errors as lines."""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, NoReturn

import grpc

from losswire.client import Client, IdentityFields, LosswireError
from losswire.summaries.figures.increase import IncomparableError
from losswire.wire import json_values

DEFAULT_SERVER = "127.0.0.1:50051"
DEFAULT_TIMEOUT = 60.0


class Exit(IntEnum):
    """The exit statuses, for scripts."""

    OK = 0
    CHECK_FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    OTHER = 4
    INTERRUPTED = 130
    BROKEN_PIPE = 141


STATUS_HELP = """\
exit status: 0 fine; 1 a check failed; 2 wrong usage, input or file; 3 the server cannot be
reached, does not serve or does not answer in time; 4 any other failure; 130 interrupted"""

_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
    grpc.StatusCode.NOT_FOUND: Exit.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: Exit.USAGE,
    grpc.StatusCode.UNAVAILABLE: Exit.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.UNREACHABLE,
}


class UsageError(Exception):
    """A wrong argument or file of a command; the text says which."""


class Parser(argparse.ArgumentParser):
    """Raises instead of exiting, and never guesses an option from its beginning."""

    def __init__(self, **settings: Any) -> None:
        """Pass the settings to argparse."""
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Raise UsageError for wrong arguments."""
        raise UsageError(f"{message} (see `{self.prog} --help`)")


def add_connection(
    parser: argparse.ArgumentParser, timeout: float = DEFAULT_TIMEOUT, *, waits: bool = True
) -> None:
    """Add the options that say where the server is, and how long to wait unless not `waits`.

    The address is not called `--target`, because that is an input of most losses.
    """
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=os.environ.get("LOSSWIRE_TARGET") or DEFAULT_SERVER,
        help=f"where the server is; default: $LOSSWIRE_TARGET, else {DEFAULT_SERVER}",
    )
    add_identity(group)
    group.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        default=timeout,
        help=f"how long each call may take; default: {timeout:g}",
    )
    if not waits:
        return
    group.add_argument(
        "--wait-for-ready",
        type=seconds,
        metavar="SECONDS",
        default=os.environ.get("LOSSWIRE_WAIT_FOR_READY") or "2",
        help="how long to wait for a server that does not answer at all; default: "
        "$LOSSWIRE_WAIT_FOR_READY, else 2",
    )


def add_identity(group: Any) -> None:
    """Add the options that say who calls and whom they trust; the SDK reads the variables."""
    group.add_argument(
        "--token",
        help="sent with each call; default: $LOSSWIRE_TOKEN, which other users cannot see",
    )
    group.add_argument(
        "--token-file", metavar="FILE", help="a file with the token; default: $LOSSWIRE_TOKEN_FILE"
    )
    group.add_argument(
        "--tls",
        action=argparse.BooleanOptionalAction,
        help="encrypt; default: $LOSSWIRE_TLS (0 or 1), else with a certificate, or with a token "
        "to another machine",
    )
    group.add_argument(
        "--tls-ca",
        metavar="FILE",
        help="PEM of who vouches for servers; default: $LOSSWIRE_TLS_CA, else gRPC's own",
    )
    group.add_argument(
        "--tls-cert",
        metavar="FILE",
        help="PEM of a certificate for the server; default: $LOSSWIRE_TLS_CLIENT_CERT",
    )
    group.add_argument(
        "--tls-key",
        metavar="FILE",
        help="PEM of its private key; default: $LOSSWIRE_TLS_CLIENT_KEY",
    )


def identity_of(arguments: argparse.Namespace) -> IdentityFields:
    """Return who calls and whom they trust, by the arguments."""
    return {
        "token": arguments.token,
        "token_file": arguments.token_file,
        "tls": arguments.tls,
        "tls_ca": arguments.tls_ca,
        "tls_cert": arguments.tls_cert,
        "tls_key": arguments.tls_key,
    }


def seconds(text: str) -> float:
    """Read a time span; argparse's own error for any other text."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        message = f"{text!r} is not a number of seconds greater than 0"
        raise argparse.ArgumentTypeError(message)
    return value


def finite(text: str) -> float:
    """Read a finite number; argparse's own error for any other text."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        message = f"{text!r} is not a finite number"
        raise argparse.ArgumentTypeError(message)
    return value


def level(text: str) -> float:
    """Read the level of an interval; argparse's own error for any other text."""
    value = finite(text)
    if not 0 < value < 1:
        message = f"{text!r} is not between 0 and 1"
        raise argparse.ArgumentTypeError(message)
    return value


@contextmanager
def refusals() -> Iterator[None]:
    """Convert the SDK's errors for arguments that cannot be sent to UsageError."""
    try:
        yield
    except (TypeError, ValueError, ModuleNotFoundError) as error:
        raise UsageError(_with_options(str(error))) from error


_NAMES = re.compile(
    r"\bwait_for_ready\b|\btoken_file\b|\btls_(?:ca|cert|key)\b|^(?:token|tls)(?=: )"
)
"""The arguments of the SDK that are options of the command line, in texts of its errors."""


def _with_options(text: str) -> str:
    """Name an argument of the SDK in a text of it as the option of the command line."""
    return _NAMES.sub(lambda found: "--" + found.group().replace("_", "-"), text)


_OPTIONS = {"relative": "--relative: ", "slice": "--slice "}
"""What an error begins with that is about an option, and not about a run."""


@contextmanager
def comparing() -> Iterator[None]:
    """Convert the error for evaluations that cannot be compared to UsageError."""
    try:
        yield
    except IncomparableError as error:
        raise UsageError(f"{_OPTIONS.get(error.field, '')}{error}") from error


def open_client(arguments: argparse.Namespace) -> Client:
    """Return a client of the server that the arguments name."""
    with refusals():
        return Client(
            arguments.server,
            timeout=arguments.timeout,
            wait_for_ready=arguments.wait_for_ready,
            **identity_of(arguments),
        )


def status_of(error: LosswireError) -> Exit:
    """Return the exit status of a failed call."""
    return _BY_CODE.get(error.code, Exit.OTHER)


def lines_of(error: LosswireError) -> Iterator[str]:
    """Write a failed call as lines, one for each violation."""
    if error.violations:
        for violation in error.violations:
            yield f"{violation.field}: {violation.description}"
        return
    facts = [error.code.name, *([f"request {error.request_id}"] if error.request_id else [])]
    yield f"{_with_options(error.message)} ({', '.join(facts)})"


def say(text: str) -> None:
    """Write lines of the result."""
    sys.stdout.write("".join(f"{_harmless(line)}\n" for line in text.split("\n")))


def complain(line: str) -> None:
    """Write a line of an error."""
    sys.stderr.write(f"losswire: {printable(line)}\n")


def printable(text: str) -> str:
    """Return text from outside as one line."""
    return _harmless(" ".join(text.split()))


def _harmless(line: str) -> str:
    """Escape characters that could control a terminal."""
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)


def to_json(value: object) -> str:
    """Write JSON; numbers that it lacks become "NaN", "Infinity" and "-Infinity"."""
    return json.dumps(json_values(value), allow_nan=False)
