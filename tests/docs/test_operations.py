"""The table of settings in docs/operations.md is that of the command line."""

import pytest

from losswire.server import cli
from tests.docs.help_pages import Option, help_of, options_of
from tests.docs.pages import blocks, read, rows

_SETTING, _DEFAULT, _MEANING = range(3)


def _serve_options() -> dict[str, Option]:
    """Return the options of `serve` by name."""
    return options_of(help_of(cli.main, "serve"))


def test_every_setting_is_in_the_table() -> None:
    """The page lists the options of `serve --help`, in the same order."""
    listed = [row[_SETTING].strip("`").split()[0] for row in rows("docs/operations.md", "Setting")]
    assert listed == list(_serve_options())


@pytest.mark.parametrize("row", rows("docs/operations.md", "Setting"), ids=lambda row: row[0])
def test_defaults_and_choices_are_those_of_the_command_line(row: list[str]) -> None:
    """A default written as code is the one that `--help` shows, and the choices are named."""
    option = _serve_options()[row[_SETTING].strip("`").split()[0]]
    if row[_DEFAULT].startswith("`"):
        assert f"(default: {row[_DEFAULT].strip('`')})" in option.text
    assert [each for each in option.choices if f"`{each}`" not in row[_MEANING]] == []


def test_the_program_is_started_as_shown() -> None:
    """The first command is that of the help, and the page has the default address."""
    [command, *_] = blocks("docs/operations.md", "sh")
    assert help_of(cli.main, "serve").startswith(f"usage: {command.text.strip()} ")
    address = _serve_options()["--listen"].text.partition("(default: ")[2].removesuffix(")")
    assert f"`{address}`" in read("docs/operations.md")
