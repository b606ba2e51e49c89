"""docs/cli.md shows what the commands print, and what they accept."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from losswire.client.cli import main
from losswire.client.cli._common import Exit
from tests.docs.help_pages import commands_of, help_of, options_of
from tests.docs.pages import WRITTEN_ADDRESS, blocks, read, rows

PAGE = "docs/cli.md"

_VARYING = (
    (re.compile(r"round trip \d+\.\d ms"), "round trip"),
    (re.compile(r"torch \S+"), "torch"),
    (re.compile(r"by (autograd|closed_form)"), "by the engine"),
)
"""What differs from one machine, moment or server to the next."""


_NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e[+-]?\d+)?(?![\w.])")


def _steps(block: str) -> Iterator[tuple[str, str]]:
    """Return the commands of a block, each with its output."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def _compared(text: str) -> tuple[str, list[float]]:
    """Split into words, which are the same everywhere, and numbers, whose last digits are not."""
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    words = "".join(_NUMBER.sub("#", text).split())  # numpy pads its numbers
    return words, [float(each) for each in _NUMBER.findall(text)]


CONSOLES = [block.text for block in blocks(PAGE, "console")]


@pytest.mark.parametrize("block", CONSOLES, ids=lambda block: block[:40])
def test_commands_print_what_is_shown(server: str, tmp_path: Path, block: str) -> None:
    """Every command of the page, run in its order by a shell."""
    folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "LOSSWIRE_TARGET": server,
        "PATH": f"{folder}:{os.environ['PATH']}",
    }
    for command, shown in _steps(block):
        ran = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        words, numbers = _compared(ran.stdout.replace(server, WRITTEN_ADDRESS))
        shown_words, shown_numbers = _compared(shown)
        assert words == shown_words, command
        assert numbers == pytest.approx(shown_numbers, rel=1e-5, abs=1e-6), command


def test_the_page_has_examples() -> None:
    """Blocks are found, so that the test above runs."""
    assert len(CONSOLES) >= 6
    commands = [command for block in CONSOLES for command, _ in _steps(block)]
    assert {command.split()[1] for command in commands if command.startswith("losswire")} == set(
        _commands()
    )


def _commands() -> list[str]:
    """Return the commands that `losswire --help` lists."""
    return commands_of(help_of(main))


def test_every_command_is_in_the_table() -> None:
    """And no other."""
    listed = [row[0].strip("`").split()[1] for row in rows(PAGE, "Command")]
    assert listed == _commands()


def test_every_option_is_on_the_page() -> None:
    """Every option of a command is explained, except -h and the placeholder for inputs."""
    text = read(PAGE)
    flags = {flag for command in _commands() for flag in options_of(help_of(main, command))}
    assert len(flags) > 10, "the options were not found"
    assert [flag for flag in flags - {"--NAME"} if flag not in text] == []


def test_every_status_is_in_the_table() -> None:
    """The numbers of the table are those that the commands exit with."""
    assert [int(row[0]) for row in rows(PAGE, "Status")] == [each.value for each in Exit]
