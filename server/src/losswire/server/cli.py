"""The command line of the server: `losswire-server serve`."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence

from losswire.server import __version__, event_loop
from losswire.server.address import StartError
from losswire.server.log import set_up_log
from losswire.server.runs.address import default_store
from losswire.server.settings import MIB, Settings, available_cpus, available_memory

_GRPC_LIMIT_MIB = 2048
"""The size of a message in MiB that gRPC's counters and protobuf cannot hold any more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    set_up_log(options.log_level)
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
        notice_seconds=options.notice_seconds,
        hang_seconds=options.hang_seconds,
        losses=tuple(options.losses),
        store=vars(options).get("store", default_store()),
    )
    try:
        if options.workers:
            return _serve_with_workers(settings, options.workers, options.log_level)
        return _serve_alone(settings)
    except StartError as error:
        print(f"losswire-server: {error}", file=sys.stderr)  # noqa: T201 (a command line prints)
        return 2


def _share(options: argparse.Namespace, name: str) -> int:
    """Return a quota in MiB, by default a quarter of the budget."""
    given: int | None = vars(options).get(name)
    return options.memory_budget_mib // 4 if given is None else given


def _serve_alone(settings: Settings) -> int:
    """Serve in this process; returns the exit status."""
    # Imported here: loads torch, which a supervisor does without.
    from losswire.server.app import App  # noqa: PLC0415
    from losswire.server.serving import serve  # noqa: PLC0415

    async def announce(app: App) -> None:
        _announce(app.address, app.http_address, app.metrics_address)

    return event_loop.run(serve(settings, announce))


def _serve_with_workers(settings: Settings, count: int, log_level: str) -> int:
    """Serve in some processes, which this one keeps alive; returns the exit status."""
    # Imported here: not every system has all that it needs.
    from losswire.server.supervisor.supervise import supervise  # noqa: PLC0415

    return asyncio.run(supervise(settings, count, log_level, _announce))


def _announce(grpc: str, http: str, metrics: str) -> None:
    """Print the addresses at which the server listens."""
    print(f"listening on {grpc}", flush=True)  # noqa: T201 (a command line prints)
    if http:
        print(f"http on {http}", flush=True)  # noqa: T201 (likewise)
    if metrics:
        print(f"metrics on {metrics}", flush=True)  # noqa: T201 (likewise)


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
    # Set here, and not at the options, whose help would say "(default: )".
    serve.set_defaults(http="", metrics="", region_socket="", losses=[], http_cors=[])
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
    _add_workers(add)
    add(
        "--losses",
        action="append",
        default=argparse.SUPPRESS,
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
    _add_drain(add)
    add(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="what the log tells",
    )
    return parser


def _add_workers(add: Callable[..., object]) -> None:
    """Add the options of several processes."""
    add(
        "--workers",
        type=_whole,
        default=0,
        metavar="N",
        help="serve with N processes, each with its share of CPUs and memory, under a supervisor "
        "that replaces one that ends or hangs; 0: this process serves alone",
    )
    add(
        "--hang-seconds",
        type=_positive_seconds,
        default=60.0,
        metavar="S",
        help="how long one evaluation may occupy the engine before it counts as hung",
    )


def _add_drain(add: Callable[..., object]) -> None:
    """Add the options that say how the server ends."""
    add(
        "--drain-seconds",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="how long calls may go on after SIGTERM",
    )
    add(
        "--notice-seconds",
        type=_seconds,
        default=0.2,
        metavar="S",
        help="how long calls are still accepted after SIGTERM, for load balancers that ask for "
        "health in between",
    )


def _add_http(add: Callable[..., object]) -> None:
    """Add the options of the HTTP door, and of the page for Prometheus."""
    add(
        "--http",
        default=argparse.SUPPRESS,
        metavar="ADDRESS",
        help="also serve HTTP with JSON and the console: HOST:PORT, where port 0 picks a free one "
        "(default: nowhere)",
    )
    add(
        "--http-cors",
        action="append",
        default=argparse.SUPPRESS,
        metavar="ORIGIN",
        help="a web page's origin, such as https://example.org, that may call over HTTP; may be "
        "repeated",
    )
    add(
        "--metrics",
        default=argparse.SUPPRESS,
        metavar="ADDRESS",
        help="HOST:PORT where Prometheus reads metrics at /metrics (default: nowhere)",
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
        default=argparse.SUPPRESS,
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


def _positive_seconds(text: str) -> float:
    """Read a time that is finite and greater than 0."""
    if _seconds(text):
        return float(text)
    message = f"{text} is not a number of seconds greater than 0"
    raise argparse.ArgumentTypeError(message)
