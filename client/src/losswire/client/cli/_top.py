"""`losswire top`: what a server does now, second by second."""

import argparse
import json
import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

from losswire.client.cli._common import (
    Exit,
    add_identity,
    complain,
    identity_of,
    say,
    seconds,
)
from losswire.client.cli._http import Door
from losswire.client.cli._live import Figures, History, NoAnswerError, address_of, fetch
from losswire.client.cli._top_screen import lines_of

_DEFAULT: Final = "http://127.0.0.1:8080"
_DESCRIPTION = """\
Show what a server does now: calls a second and how long they take, memory and its budgets, the
queue, batches, refusals. It reads /v1/live, so the server needs --http. On a terminal the screen
is drawn again and again until `q`; with --once, or where the output is no terminal, it is printed
once.
"""
_WINDOW: Final = 10.0
"""The seconds that rates and quantiles on the screen are of."""

_MANY_KEYS: Final = 64
_LEAVING: Final = (b"q", b"\x1b", b"")
"""Keys that end the screen: q, Escape, and the end of the input."""
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_CLEAR_LINE: Final = "\x1b[K"
_CLEAR_REST: Final = "\x1b[J"


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "top", help="show what a server does now", description=_DESCRIPTION
    )
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        default=os.environ.get("LOSSWIRE_HTTP") or _DEFAULT,
        help=f"the HTTP address of a server, as it prints it; default: $LOSSWIRE_HTTP, else "
        f"{_DEFAULT}",
    )
    parser.add_argument("--once", action="store_true", help="print it once, without a screen")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--interval",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="how often to look; with --once, the time that rates are of; default: 1",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long an answer may take; default: 5",
    )
    add_identity(parser.add_argument_group("server"))
    parser.set_defaults(run=run, server="")


def run(arguments: argparse.Namespace) -> Exit:
    """Print what a server does, or show it until the user has seen enough."""
    address = address_of(arguments.url)
    door = Door(address, identity_of(arguments))
    try:
        if arguments.json or arguments.once or not sys.stdout.isatty():
            _print_once(door, arguments)
        else:
            _show(door, arguments)
    except NoAnswerError as error:
        complain(f"{address}: {error}")
        return error.status
    return Exit.OK


def _print_once(door: Door, arguments: argparse.Namespace) -> None:
    """Look twice, so that rates are those of now."""
    history = History(arguments.interval)
    history.add(time.monotonic(), fetch(door, arguments.timeout))
    time.sleep(arguments.interval)
    found = history.add(time.monotonic(), fetch(door, arguments.timeout))
    if arguments.json:
        say(json.dumps(_facts(found), default=str))
    else:
        say("\n".join(lines_of(found, door.address, history.restarts)))


def _facts(found: Figures) -> dict[str, Any]:
    """Return the figures as JSON; a quantile of nothing is null."""
    facts: dict[str, Any] = {
        "calls": [asdict(each) for each in found.calls],
        "calls_per_second": found.per_second,
        "failed_per_second": found.failed_per_second,
        "seconds": found.seconds,
        "stages": {
            stage: dict(zip(("per_second", "p50", "p99"), each, strict=True))
            for stage, each in found.stages.items()
        },
        "batch_p50": found.batch_p50,
        "batch_p99": found.batch_p99,
        "refusals": {
            reason: {"total": total, "per_second": per_second}
            for reason, (total, per_second) in found.refusals.items()
        },
        **{
            name: found.live[name]
            for name in (
                *("worker_id", "server_version", "ready", "uptime_seconds", "queue"),
                *("reserved_bytes", "budget_bytes", "quota_bytes", "device", "workers"),
                "recent_refusals",
            )
        },
    }
    return {name: _without_nan(each) for name, each in facts.items()}


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 (only NaN)


def _show(door: Door, arguments: argparse.Namespace) -> None:
    """Draw the screen until `q` or Ctrl-C; the first answer must come."""
    history = History(_WINDOW)
    lines = lines_of(history.add(time.monotonic(), fetch(door, arguments.timeout)), door.address)
    trouble: list[str] = []
    with _screen() as wait:
        while True:
            _draw([*trouble, *lines, "", "q quits"])
            if wait(arguments.interval):
                return
            try:
                found = history.add(time.monotonic(), fetch(door, arguments.timeout))
            except NoAnswerError as error:
                trouble = [f"no answer: {error}", "the last one was:"]
            else:
                trouble = []
                lines = lines_of(found, door.address, history.restarts)


def _draw(lines: list[str]) -> None:
    """Write lines over the screen, cut to its size."""
    columns, rows = shutil.get_terminal_size()
    shown = [f"{line[:columns]}{_CLEAR_LINE}" for line in lines[:rows]]
    sys.stdout.write(_HOME + "\r\n".join(shown) + _CLEAR_REST)
    sys.stdout.flush()


Wait = Callable[[float], bool]
"""Waits for some seconds; returns whether the user wants to leave."""


@contextmanager
def _screen() -> Iterator[Wait]:
    """Draw on the whole terminal until the context ends; yields what waits for a key."""
    sys.stdout.write(_ENTER)
    try:
        with _keys() as wait:
            yield wait
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


@contextmanager
def _keys() -> Iterator[Wait]:
    """Read keys at once, where the system can and the input is a terminal."""
    if os.name != "posix" or not sys.stdin.isatty():
        yield _sleep
        return
    import termios  # noqa: PLC0415 (POSIX only)
    import tty  # noqa: PLC0415 (as above)

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def wait(span: float) -> bool:
        ready, _, _ = select.select([descriptor], [], [], span)
        return bool(ready) and os.read(descriptor, _MANY_KEYS).lower() in _LEAVING

    tty.setcbreak(descriptor)
    try:
        yield wait
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _sleep(span: float) -> bool:
    """Wait where no key can be read."""
    time.sleep(span)
    return False
