"""What the tests of the command line share."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from losswire.client.cli import main


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]
"""Runs one command: its words, as texts."""


@pytest.fixture
def losswire(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run commands against the server of the session."""
    monkeypatch.setenv("LOSSWIRE_TARGET", server)
    monkeypatch.delenv("LOSSWIRE_TOKEN", raising=False)

    def run(*words: str) -> Ran:
        status = main(words)
        return Ran(status, *capsys.readouterr())

    return run
