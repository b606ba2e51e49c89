"""Decoders take any bytes: they refuse them by the errors of their contract, and agree."""

import subprocess
import sys

import pytest

from losswire.server import thresholds
from tests.support.fuzz import DECODERS, SMALL, at_random
from tests.support.soak import record, tier

_SECONDS = 60
"""How long each is fuzzed in the long tier, guided by coverage where atheris is installed."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", DECODERS)
def test_decoders_take_any_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spoilt messages neither crash nor hang a decoder, and no two ways to read one differ."""
    for key, value in SMALL.items():
        monkeypatch.setattr(thresholds, key, value)
    assert at_random(DECODERS[name], 60, tier(short=300, soak=3000)) > 0
    if not tier(short=False, soak=True):
        return
    command = [sys.executable, "-m", "tests.support.fuzz", name, str(_SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=540)
    record(f"defects in decoder: {name}", done.returncode, required="<= 0")
    assert done.returncode == 0, done.stderr[-3000:]
