"""docs/adapters.md shows programs that run."""

import subprocess
import sys

import pytest

from tests.docs.pages import WRITTEN_ADDRESS, blocks

PROGRAMS = [block.text for block in blocks("docs/adapters.md", "python")]

CHECKS = (
    "assert model.weight.grad is not None and model.weight.grad.abs().sum() > 0",
    "assert abs(value - jnp.log(3)) < 1e-6 and gradient.shape == (4, 3)",
)
"""What holds at the end of each program."""


@pytest.mark.parametrize(("program", "check"), list(zip(PROGRAMS, CHECKS, strict=True)))
def test_programs_run(server: str, program: str, check: str) -> None:
    """Each program, sent to another port, ends with a gradient."""
    code = f"{program.replace(WRITTEN_ADDRESS, server)}\n{check}\n"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
