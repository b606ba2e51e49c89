"""The output that the README shows is real."""

import re
import subprocess
import sys

import numpy as np
import pytest

from losswire.client import Client, InvalidArgumentError
from tests.docs.pages import ROOT, WRITTEN_ADDRESS, blocks, read

_QUICKSTART = ROOT / "examples" / "quickstart.py"


def _shown_outputs() -> list[str]:
    """Return the printed blocks: of the demo, of the example, and of a mistake."""
    return [block.text for block in blocks("README.md", "text")]


def test_the_example_is_the_quickstart() -> None:
    """The README shows examples/quickstart.py, without its docstring."""
    example = blocks("README.md", "python")[0]
    docstring, _, code = _QUICKSTART.read_text().partition('"""\n\n')
    assert docstring.count("\n") == 0
    assert example.text == code


def test_the_example_prints_what_is_shown(server: str) -> None:
    """The example, sent to another port, prints the block below it."""
    example = blocks("README.md", "python")[0]
    ran = subprocess.run(
        [sys.executable, "-c", example.text.replace(WRITTEN_ADDRESS, server)],
        capture_output=True,
        check=True,
        text=True,
    )
    assert ran.stdout == _shown_outputs()[1]


def test_the_mistake_reads_as_shown(server: str) -> None:
    """A class that is not there gives the error shown, except the request id."""
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]], np.float32)
    with Client(server) as client, pytest.raises(InvalidArgumentError) as caught:
        client.evaluate("cross_entropy", {"input": logits, "target": np.array([0, 7])})
    number = re.compile(r"request [0-9a-f]+")
    shown = _shown_outputs()[2]
    assert number.sub("", str(caught.value)) == number.sub("", shown.rstrip("\n"))


def test_the_demo_shown_passed() -> None:
    """The demo's output in the README has the lines that the demo prints, in their order."""
    demo = (ROOT / "examples" / "digits" / "train.py").read_text()
    labels = re.findall(r'f"([a-z]+(?: [a-z]+)?) {2,}', demo)
    shown = _shown_outputs()[0].splitlines()
    assert [re.split(r" {2,}", line)[0] for line in shown] == [*labels, "passed"]


def test_every_folder_and_page_is_listed() -> None:
    """The table of contents has every page of docs/."""
    text = read("README.md")
    found = (each for each in (ROOT / "docs").iterdir() if each.is_dir() or each.suffix == ".md")
    entries = [path.name + "/" * path.is_dir() for path in found]
    assert [each for each in sorted(entries) if f"(docs/{each.rstrip('/')})" not in text] == []
