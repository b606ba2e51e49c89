"""The table of settings in docs/operations.md is that of the command line."""

import argparse

import pytest

from losswire.server import cli
from tests.docs.pages import blocks, read, rows

_SETTING, _DEFAULT, _WHAT = range(3)


def _serve_options() -> dict[str, argparse.Action]:
    """Give the options of `serve` by name."""
    parser = cli._parser()
    [commands] = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    found = commands.choices["serve"]._actions
    return {each.option_strings[-1]: each for each in found if each.dest != "help"}


def test_every_setting_is_in_the_table() -> None:
    """The page lists the options of `serve --help`, in the same order."""
    listed = [row[_SETTING].strip("`").split()[0] for row in rows("docs/operations.md", "Setting")]
    assert listed == list(_serve_options())


@pytest.mark.parametrize("row", rows("docs/operations.md", "Setting"), ids=lambda row: row[0])
def test_defaults_and_choices_are_those_of_the_command_line(row: list[str]) -> None:
    """A default written as code is the parser's, and the choices are named."""
    action = _serve_options()[row[_SETTING].strip("`").split()[0]]
    if row[_DEFAULT].startswith("`"):
        assert row[_DEFAULT].strip("`") == str(action.default)
    assert [each for each in action.choices or () if f"`{each}`" not in row[_WHAT]] == []


def test_the_program_is_started_as_shown() -> None:
    """The command on the page parses."""
    [command, *_] = blocks("docs/operations.md", "sh")
    program, *arguments = command.text.split()
    parser = cli._parser()
    assert program == parser.prog
    assert parser.parse_args(arguments).listen in read("docs/operations.md")
