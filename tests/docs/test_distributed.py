"""docs/distributed.md shows programs that run."""

import subprocess
import sys

from tests.docs.pages import blocks

PROGRAMS = [block.text for block in blocks("docs/distributed.md", "python")]


def test_the_program_of_one_process_runs() -> None:
    """The first one needs nothing else; it has its own check."""
    code = PROGRAMS[0]
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_all_programs_are_python() -> None:
    """Those that need a cluster are at least what Python reads."""
    assert len(PROGRAMS) == 3
    for program in PROGRAMS:
        compile(program, "docs/distributed.md", "exec")
