"""The command line of the server: `losswire-server serve`."""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence

from losswire.server import __version__
from losswire.server.address import StartError
from losswire.server.app import App
from losswire.server.rpc.quiet import quiet_cancelled_calls
from losswire.server.runs.address import default_store
from losswire.server.settings import MIB, Settings, available_cpus, available_memory

_GRPC_LIMIT_MIB = 2048
"""The size of a message in MiB that gRPC's counters and protobuf cannot hold any more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    _set_up_log(options.log_level)
    settings = Settings(
        listen=options.listen,
        http=options.http,
        http_cors=tuple(options.http_cors),
        metrics=options.metrics,
        device=options.device,
        threads=options.threads,
        allow_insecure=options.allow_insecure,
        max_message_bytes=options.max_message_mib * MIB,
        memory_budget_bytes=options.memory_budget_mib * MIB,
        resident_quota_bytes=_share(options, "resident_quota_mib") * MIB,
        region_quota_bytes=_share(options, "region_quota_mib") * MIB,
        region_socket=options.region_socket,
        drain_seconds=options.drain_seconds,
        losses=tuple(options.losses),
        store=vars(options).get("store", default_store()),
    )
    try:
        return asyncio.run(_serve(settings))
    except StartError as error:
        print(f"losswire-server: {error}", file=sys.stderr)  # noqa: T201 (a command line prints)
        return 2


def _share(options: argparse.Namespace, name: str) -> int:
    """Return a quota in MiB, by default a quarter of the budget."""
    given: int | None = vars(options).get(name)
    return options.memory_budget_mib // 4 if given is None else given


async def _serve(settings: Settings) -> int:
    """Serve until SIGTERM, SIGINT or the loss of the device; returns the exit status."""
    stopping = asyncio.Event()
    app = App(settings, on_lost=stopping.set)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    address = await app.start()
    # Everything created until now stays; collecting it again and again would delay calls.
    gc.collect()
    gc.freeze()
    print(f"listening on {address}", flush=True)  # noqa: T201 (a command line prints)
    if app.http_address:
        print(f"http on {app.http_address}", flush=True)  # noqa: T201 (likewise)
    if app.metrics_address:
        print(f"metrics on {app.metrics_address}", flush=True)  # noqa: T201 (likewise)
    await stopping.wait()
    await app.stop()
    return 1 if app.device_lost else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="losswire-server", description="Serves loss functions and their exact gradients."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve until SIGTERM",
        description="Serve until SIGTERM. Prints `listening on HOST:PORT` when ready.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = serve.add_argument
    add(
        "--listen",
        default="127.0.0.1:50051",
        metavar="ADDRESS",
        help="HOST:PORT, where port 0 picks a free one, or unix:PATH",
    )
    _add_http(add)
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    add(
        "--threads",
        type=_positive,
        default=available_cpus(),
        metavar="N",
        help="how many CPU threads torch uses; the default is what the cgroup allows",
    )
    add(
        "--losses",
        action="append",
        default=[],
        metavar="MODULE",
        help="an installed module with further losses; may be repeated",
    )
    add(
        "--allow-insecure",
        action="store_true",
        help="listen where other machines can call, without TLS or token",
    )
    _add_memory(add)
    _add_store(add)
    add(
        "--drain-seconds",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="how long calls may go on after SIGTERM",
    )
    add(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="what the log tells",
    )
    return parser


def _add_http(add: Callable[..., object]) -> None:
    """Add the options of the HTTP door, and of the page for Prometheus."""
    add(
        "--http",
        # argparse would write the default, which is no address.
        default="",
        metavar="ADDRESS",
        help="also serve HTTP with JSON and the console: HOST:PORT, where port 0 picks a free one",
    )
    add(
        "--http-cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a web page's origin, such as https://example.org, that may call over HTTP; may be "
        "repeated",
    )
    add(
        "--metrics",
        default="",
        metavar="ADDRESS",
        help="HOST:PORT where Prometheus reads metrics at /metrics; without it, nowhere",
    )


def _add_memory(add: Callable[..., object]) -> None:
    """Add the options that bound memory."""
    add(
        "--max-message-mib",
        type=_message_size,
        default=8,
        metavar="MIB",
        help="the largest request in one piece; less than 2048",
    )
    add(
        "--memory-budget-mib",
        type=_positive,
        default=max(available_memory() // 2 // MIB, 1),
        metavar="MIB",
        help="the memory that all evaluations together may take; the default is half of it all",
    )
    add(
        "--resident-quota-mib",
        type=_whole,
        # Not shown by argparse: the text of the help names the default.
        default=argparse.SUPPRESS,
        metavar="MIB",
        help="the memory that resident tensors may take, beside the budget; 0 keeps none "
        "(default: a quarter of the budget)",
    )
    add(
        "--region-quota-mib",
        type=_whole,
        default=argparse.SUPPRESS,
        metavar="MIB",
        help="how much of the budget may be memory shared with callers on this machine; 0 shares "
        "none (default: a quarter of the budget)",
    )
    add(
        "--region-socket",
        # argparse would write the default, which is no path.
        default="",
        metavar="PATH",
        help="the unix socket that hands out shared memory; without it, one in a private folder "
        "when only this machine can call, and none otherwise",
    )


def _add_store(add: Callable[..., object]) -> None:
    """Add the option that says where runs are kept."""
    add(
        "--store",
        # argparse would write the default, which differs between users.
        default=argparse.SUPPRESS,
        metavar="STORE",
        help="where runs are kept: a folder, postgresql+psycopg://USER@HOST/DATABASE, "
        "sqlite:////FOLDER/FILE, or `none` (default: losswire in $XDG_STATE_HOME, or else in "
        "~/.local/state)",
    )


def _positive(text: str) -> int:
    """Read a whole number greater than 0."""
    if not text.isdecimal() or int(text) == 0:
        message = f"{text} is not a whole number greater than 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _whole(text: str) -> int:
    """Read a whole number that is not negative."""
    if not text.isdecimal():
        message = f"{text} is not a whole number"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _message_size(text: str) -> int:
    """Read a size in MiB that gRPC can count in bytes."""
    if _positive(text) < _GRPC_LIMIT_MIB:
        return int(text)
    message = f"{text} is not less than {_GRPC_LIMIT_MIB}"
    raise argparse.ArgumentTypeError(message)


def _seconds(text: str) -> float:
    """Read a time that is finite and not negative."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < float("inf"):
            return float(text)
    message = f"{text} is not a number of seconds"
    raise argparse.ArgumentTypeError(message)


class _JsonFormatter(logging.Formatter):
    """One JSON object per line, so that no text of a caller can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
        entry = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _set_up_log(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(capture=True)
    quiet_cancelled_calls()
