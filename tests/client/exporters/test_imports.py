"""Each exporter loads one tool, and says what to install where it is missing."""

import subprocess
import sys

import pytest

_CODE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in {refused}:
            raise ImportError(name + " is refused here")

sys.meta_path.insert(0, Refuse())
{statement}
"""

TOOLS = ("matplotlib", "mlflow", "opentelemetry", "sklearn", "tensorboard", "torch", "wandb")


def _run(statement: str, *refused: str) -> "subprocess.CompletedProcess[str]":
    """Run a statement in a process in which these modules cannot be imported."""
    code = _CODE.format(refused=set(refused), statement=statement)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


MODULES = (
    ("losswire.client", ()),
    ("losswire.client.exporters", ()),
    ("losswire.client.exporters.prometheus", ()),
    ("losswire.client.sklearn", ()),
    ("losswire.client.exporters.tensorboard", ("tensorboard",)),
    ("losswire.client.exporters.opentelemetry", ("opentelemetry",)),
)


@pytest.mark.parametrize(("module", "needed"), MODULES, ids=[each[0] for each in MODULES])
def test_no_other_tool_is_loaded(module: str, needed: tuple[str, ...]) -> None:
    """A module is imported where only what it needs can be."""
    done = _run(f"import {module}", *(each for each in TOOLS if each not in needed))
    assert (done.returncode, done.stderr) == (0, "")


EXTRAS = (
    ("import losswire.client.exporters.mlflow", "mlflow", "mlflow"),
    ("import losswire.client.exporters.wandb", "wandb", "wandb"),
    ("import losswire.client.exporters.tensorboard", "tensorboard", "tensorboard"),
    ("import losswire.client.exporters.opentelemetry", "opentelemetry", "opentelemetry"),
    (
        "from tests.support.evaluated import summary; summary().plot()",
        "matplotlib",
        "plot",
    ),
)


@pytest.mark.parametrize(("statement", "missing", "extra"), EXTRAS, ids=[e[2] for e in EXTRAS])
def test_a_missing_tool_is_named(statement: str, missing: str, extra: str) -> None:
    """With the extra to install."""
    done = _run(statement, missing)
    assert done.returncode == 1
    assert f"pip install 'losswire[{extra}]'" in done.stderr.splitlines()[-1]
