"""`losswire ping`: whether a server serves."""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import grpc

from losswire.client import LosswireError, ServerInfo, __version__
from losswire.client._calls import health, operations
from losswire.client._calls.absence import unreachable_error
from losswire.client._calls.channels import channel_to
from losswire.client._calls.session import Session, open_session
from losswire.client._errors import UnavailableError, error_from_call
from losswire.client.cli._common import (
    Exit,
    add_connection,
    complain,
    identity_of,
    lines_of,
    printable,
    refusals,
    say,
    status_of,
    to_json,
)

# The answer has one enum in field 1.
_HEALTHS = {
    b"": "UNKNOWN",
    b"\x08\x01": "SERVING",
    b"\x08\x02": "NOT_SERVING",
    b"\x08\x03": "SERVICE_UNKNOWN",
}
_SECONDS_BETWEEN_TRIES = 0.2

_DESCRIPTION = """\
Ask a server for its health (grpc.health.v1) and its versions, and print one line. The exit status
is 0 when it is SERVING, 1 when it says anything else (such as NOT_SERVING while it drains), 3 when
it does not answer in time. The round trip is that of one call over the connection once it stands.
"""


@dataclass(frozen=True, slots=True)
class _Answer:
    """The outcome for one server."""

    status: Exit
    health: str = ""
    """The health it reported; empty when it could not be asked."""
    info: ServerInfo | None = None
    """Its description; None when it did not answer."""
    error: LosswireError | None = None
    """Why one of these is missing."""
    round_trip: float = 0.0
    """The seconds of one call."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "ping", help="ask a server whether it serves", description=_DESCRIPTION
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each server")
    parser.add_argument(
        "--wait", action="store_true", help="try again until it serves or the timeout is over"
    )
    add_connection(parser, timeout=5.0, waits=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> Exit:
    """Ask every server that is named; returns the worst status."""
    with refusals():
        identity = identity_of(arguments)
        session = open_session(arguments.server, arguments.timeout, identity=identity)
        if session.needs_start:
            session.start()
    deadline = time.monotonic() + arguments.timeout
    worst = Exit.OK
    for target in session.targets:
        with channel_to(target, session.identity) as channel:
            answer = _ask(target, channel, session, deadline)
            while arguments.wait and answer.status and _pause(deadline):
                answer = _ask(target, channel, session, deadline)
        _report(target, answer, as_json=arguments.json)
        worst = max(worst, answer.status)
    return worst


def _pause(deadline: float) -> bool:
    """Wait before another try; False when there is no time for one."""
    if deadline - time.monotonic() <= _SECONDS_BETWEEN_TRIES:
        return False
    time.sleep(_SECONDS_BETWEEN_TRIES)
    return True


def _ask(target: str, channel: grpc.Channel, session: Session, deadline: float) -> _Answer:
    """Ask for the health, then for the versions, which may need a token."""

    def call(path: str, request: bytes) -> bytes:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path, None, None)
        left = max(0.0, deadline - time.monotonic())
        return method(request, timeout=left, metadata=session.metadata)

    try:
        answer = call(health.METHOD, health.WHOLE_SERVER)
    except grpc.RpcError as failure:
        error = error_from_call(failure)
        if isinstance(error, UnavailableError):
            error = unreachable_error([target], error, may_wait=False)
        return _Answer(status_of(error), error=error)
    said = _HEALTHS.get(answer, "UNKNOWN")
    status = Exit.OK if said == "SERVING" else Exit.CHECK_FAILED
    information = operations.get_server_info()
    started = time.monotonic()
    try:
        answer = call(information.method.path, information.request)
    except grpc.RpcError as failure:
        return _Answer(status, said, error=error_from_call(failure))
    round_trip = time.monotonic() - started
    info = information.read(information.method.parse(answer))
    return _Answer(status, said, info, round_trip=round_trip)


def _report(target: str, answer: _Answer, *, as_json: bool) -> None:
    if as_json:
        say(to_json(_facts(target, answer)))
    elif not answer.health and answer.error:
        for line in lines_of(answer.error):
            complain(f"{target}: {line}")
    else:
        say(printable(_sentence(target, answer)))


def _facts(target: str, answer: _Answer) -> dict[str, object]:
    facts: dict[str, object] = {
        "server": target,
        "status": answer.health or None,
        "client_version": __version__,
    }
    if answer.info:
        facts["server_version"] = answer.info.server_version
        facts["torch_version"] = answer.info.torch_version
        facts["device"] = answer.info.device
        facts["round_trip_ms"] = round(answer.round_trip * 1e3, 3)
    if answer.error:
        facts["error"] = " ".join(lines_of(answer.error))
    return facts


def _sentence(target: str, answer: _Answer) -> str:
    info = answer.info
    if info is None:
        why = answer.error.code.name if answer.error else "UNKNOWN"
        return f"{target} {answer.health}, versions unknown ({why}), losswire {__version__}"
    return (
        f"{target} {answer.health}, losswire-server {info.server_version}, "
        f"torch {info.torch_version} on {info.device}, losswire {__version__}, "
        f"round trip {answer.round_trip * 1e3:.1f} ms"
    )
