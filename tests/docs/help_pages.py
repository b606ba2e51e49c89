"""What a command line says about itself with `--help`."""

import contextlib
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unittest import mock

_OPTION = re.compile(r"^  (?:-\w, )?(--[\w-]+)(.*(?:\n {4,}.*)*)", re.MULTILINE)
_CHOICES = re.compile(r"^ \{(.*?)\}")
_COMMAND = re.compile(r"^    ([a-z][\w-]*)\s", re.MULTILINE)


@dataclass(frozen=True)
class Option:
    """An option, and the words that explain it."""

    choices: tuple[str, ...]
    text: str


def help_of(main: Callable[[Sequence[str]], int], *command: str) -> str:
    """Return what a program prints for a command and `--help`, on a wide terminal."""
    output = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "1000"}),
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
    ):
        main([*command, "--help"])
    return output.getvalue()


def options_of(page: str) -> dict[str, Option]:
    """Return the options of a help page by name, without `--help` itself."""
    found = {}
    for name, rest in _OPTION.findall(page):
        choices = _CHOICES.match(rest)
        found[name] = Option(
            choices=tuple(choices[1].split(",")) if choices else (), text=" ".join(rest.split())
        )
    found.pop("--help")
    return found


def commands_of(page: str) -> list[str]:
    """Return the commands of a help page, in their order."""
    return _COMMAND.findall(page)
