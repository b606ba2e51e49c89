"""The examples of docs/http.md work as they are written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from losswire.server.http.routes import ROUTES
from losswire.server.rpc.status import ERROR_CODES
from tests.docs.pages import ROOT
from tests.support.http_door import open_door

_WRITTEN = "127.0.0.1:8080"
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FIRST = "losswire-server serve --http 127.0.0.1:8080\n"


def test_the_examples_run(tmp_path: Path) -> None:
    """Each block after the one that starts the server runs against it."""
    blocks = _BLOCK.findall((ROOT / "docs" / "http.md").read_text("utf-8"))
    assert blocks[0] == ("sh", _FIRST)
    commands = {"sh": ["sh", "-ec"], "python": [sys.executable, "-c"]}
    with open_door(tmp_path / "log") as door:
        for language, text in blocks[1:]:
            written = text.replace(_WRITTEN, door.address).replace("curl ", "curl --fail ")
            result = subprocess.run(
                [*commands[language], written], capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stderr
            assert result.stdout.strip()


def test_every_path_is_named() -> None:
    """The page names each path that the OpenAPI document has."""
    text = (ROOT / "docs" / "http.md").read_text("utf-8")
    documented = {each.path.partition("/{")[0] for each in ROUTES if each.documented}
    assert [each for each in documented if each not in text] == []


@pytest.mark.parametrize("reason", ["OVER_LIMIT", "WRONG_HOST", "MISSING_RESIDENT_TENSOR"])
def test_named_reasons_exist(reason: str) -> None:
    """Reasons in the page are in the table of errors."""
    assert reason in {each.reason for each in ERROR_CODES.values()}
