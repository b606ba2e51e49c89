"""docs/exporters.md shows one program that runs, and what it prints."""

import subprocess
import sys
from pathlib import Path

from tests.docs.pages import WRITTEN_ADDRESS, blocks

PAGE = "docs/exporters.md"


def test_the_program_runs(server: str, tmp_path: Path) -> None:
    """All blocks after each other, sent to another port, print what the page says."""
    program = "\n".join(block.text for block in blocks(PAGE, "python"))
    program = program.replace(WRITTEN_ADDRESS, server)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "".join(block.text for block in blocks(PAGE, "text"))
