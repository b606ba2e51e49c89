"""Frameworks are loaded by their own adapters, and by nothing else of the SDK."""

import subprocess
import sys

import pytest

_CODE = """
import sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in {watched}:
            raise ImportError(name + " was imported")

sys.meta_path.insert(0, Watch())
{statement}
"""


def _import(statement: str, *watched: str) -> "subprocess.CompletedProcess[str]":
    """Run a statement in a process in which these modules cannot be imported."""
    code = _CODE.format(watched=set(watched), statement=statement)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


STATEMENTS = (
    ("import losswire.client", ("torch", "jax")),
    ("import losswire.client.cli", ("torch", "jax")),
    ("from losswire.client import Client; Client('host:1')", ("torch", "losswire.server")),
    ("from losswire.client import Client; Client('local:')", ("torch",)),
    ("import losswire.client.distributed", ("torch", "jax", "pyarrow")),
    ("import losswire.client.ray, losswire.client.spark", ("ray", "pyspark", "pyarrow")),
    ("import losswire.client.torch", ("jax",)),
    ("import losswire.client.jax", ("torch",)),
)


@pytest.mark.parametrize(("statement", "watched"), STATEMENTS, ids=[each[0] for each in STATEMENTS])
def test_no_framework_is_loaded_unasked(statement: str, watched: tuple[str, ...]) -> None:
    """The SDK, the command line and each adapter do without the frameworks of the others."""
    done = _import(statement, *watched)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_watch_sees(framework: str) -> None:
    """An adapter without its framework cannot be imported, so the test above can fail."""
    done = _import(f"import losswire.client.{framework}", framework)
    assert done.returncode == 1
    assert f"{framework} was imported" in done.stderr
