"""Runs a command: arguments, then the command, then an exit status. Never a traceback."""

import os
import sys
from collections.abc import Sequence

from losswire.client import LosswireError, __version__
from losswire.client.cli import (
    _catalogue,
    _check_gradient,
    _eval,
    _gate,
    _ping,
    _runs,
    _summarize,
    _top,
    _ui,
)
from losswire.client.cli._common import (
    STATUS_HELP,
    Exit,
    Parser,
    UsageError,
    complain,
    lines_of,
    status_of,
)

_COMMANDS = (_catalogue, _eval, _check_gradient, _summarize, _runs, _gate, _ui, _top, _ping)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe. Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE
    return status


def _run(arguments: Sequence[str]) -> int:
    """Run one command; every failure but a broken pipe becomes lines and a status."""
    server = ""
    try:
        parser = make_parser()
        options, unknown = parser.parse_known_args(arguments)
        if unknown and not options.takes_inputs:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        options.words = arguments[1:]
        server = options.server
        status: int = options.run(options)
    except BrokenPipeError:
        raise
    except LosswireError as error:
        status = status_of(error)
        where = f"{server}: " if status == Exit.UNREACHABLE else ""
        for line in lines_of(error):
            complain(f"{where}{line}")
    except UsageError as error:
        complain(str(error))
        return Exit.USAGE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 (the user of a command gets a line, not a traceback)
        complain(f"{type(error).__name__}: {error}")
        return Exit.OTHER
    return status


def make_parser() -> Parser:
    """Return the parser of all arguments that do not depend on a loss."""
    parser = Parser(
        prog="losswire",
        description="Losses and exact gradients from a Losswire server.",
        epilog=STATUS_HELP,
    )
    parser.add_argument("--version", action="version", version=f"losswire {__version__}")
    parser.set_defaults(takes_inputs=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
