"""The command line of the server: `losswire-server serve`."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from losswire.server import __version__, event_loop
from losswire.server.address import StartError
from losswire.server.configuration.schema import Configuration, default_of, flag_of
from losswire.server.configuration.show import lines_of
from losswire.server.configuration.sources import CONFIG_VARIABLE, Found, flag_name
from losswire.server.identity.commands import add_commands
from losswire.server.log import set_up_log
from losswire.server.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except StartError as error:
        for line in str(error).splitlines():
            print(f"losswire-server: {line}", file=sys.stderr)  # noqa: T201 (a command line prints)
        return 2


def _serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM; returns the exit status. Raises StartError."""
    given = vars(options)
    flags = {name: given[name] for name in Configuration.model_fields if name in given}
    found = Found(flags, given.get("config", os.environ.get(CONFIG_VARIABLE, "")))
    if options.print_config or options.check_config:
        text = "\n".join(lines_of(found)) if options.print_config else "the settings are valid"
        print(text)  # noqa: T201 (as above)
        return 0
    configuration = found.configuration
    set_up_log(configuration.log_level)
    found.warn_of_variables()
    settings = configuration.settings()
    if configuration.workers:
        return _serve_with_workers(settings, configuration.workers, configuration.log_level)
    return _serve_alone(settings)


def _serve_alone(settings: Settings) -> int:
    """Serve in this process; returns the exit status."""
    # Imported here: loads torch, which a supervisor does without.
    from losswire.server.app import App  # noqa: PLC0415
    from losswire.server.serving import serve  # noqa: PLC0415

    async def announce(app: App) -> None:
        _announce(app.address, app.http_address, app.metrics_address, app.health_address)

    return event_loop.run(serve(settings, announce))


def _serve_with_workers(settings: Settings, count: int, log_level: str) -> int:
    """Serve in some processes, which this one keeps alive; returns the exit status."""
    # Imported here: not every system has all that it needs.
    from losswire.server.supervisor.supervise import supervise  # noqa: PLC0415

    return asyncio.run(supervise(settings, count, log_level, _announce))


def _announce(grpc: str, http: str, metrics: str, health: str) -> None:
    """Print the addresses at which the server listens."""
    print(f"listening on {grpc}", flush=True)  # noqa: T201 (a command line prints)
    if http:
        print(f"http on {http}", flush=True)  # noqa: T201 (likewise)
    if metrics:
        print(f"metrics on {metrics}", flush=True)  # noqa: T201 (likewise)
    if health:
        print(f"health on {health}", flush=True)  # noqa: T201 (likewise)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise StartError."""
        text = f"{message} (see `{self.prog} --help`)"
        raise StartError(text)


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="losswire-server", description="Serves loss functions and their exact gradients."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve until SIGTERM",
        description="Serve until SIGTERM. Prints `listening on HOST:PORT` when ready.",
        epilog="Each option is also a variable, such as LOSSWIRE_LISTEN, and a key of the file, "
        "such as `listen`; an option counts more than a variable, and that more than a key.",
        allow_abbrev=False,
    )
    serve.set_defaults(run=_serve)
    add_commands(commands)
    for name in Configuration.model_fields:
        _add(serve, name)
    serve.add_argument(
        "--config",
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="a file of settings in TOML (default: $LOSSWIRE_CONFIG, or none)",
    )
    serve.add_argument(
        "--print-config",
        action="store_true",
        help="print the settings and where each comes from, as such a file, and end",
    )
    serve.add_argument(
        "--check-config", action="store_true", help="check the settings, say so, and end"
    )
    return parser


def _add(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option of a setting, whose value is checked with all others."""
    flag, text = flag_of(name), Configuration.model_fields[name].description or ""
    facts: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
    if flag.shows_default:
        text += f" (default: {default_of(name)})"
    if not flag.metavar:
        facts["action"] = "store_true"
    elif flag.choices:
        facts["choices"] = flag.choices
    else:
        facts["metavar"] = flag.metavar
    if flag.repeats:
        facts["action"] = "append"
    parser.add_argument(flag_name(name), help=text.replace("%", "%%"), **facts)
