"""Imports inside of the server and the SDK point down, and the check that says so can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_SOURCES = ("proto/src", "client/src", "server/src")


def _lint_imports(tree: Path) -> "subprocess.CompletedProcess[str]":
    """Check the sources of a tree against the contracts of this repository."""
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [command, "--no-logo", "--no-cache", _ROOT / "pyproject.toml"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(tree / each) for each in _SOURCES)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources that a test may break."""
    root = tmp_path_factory.mktemp("tree")
    for folder in _SOURCES:
        shutil.copytree(
            _ROOT / folder,
            root / folder,
            ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info"),
        )
    return root


def test_imports_point_down() -> None:
    """The contracts in pyproject.toml hold for the sources as they are."""
    done = _lint_imports(_ROOT)
    assert done.returncode == 0, done.stdout


def _with_import(tree: Path, importer: str, imported: str) -> "subprocess.CompletedProcess[str]":
    """Check a tree while one of its modules has one import more."""
    (path,) = tree.glob(f"*/src/{importer.replace('.', '/')}.py")
    source = path.read_text("utf-8")
    path.write_text(f"{source}\nimport {imported}\n", "utf-8")
    try:
        return _lint_imports(tree)
    finally:
        path.write_text(source, "utf-8")


_SERVER = "losswire.server"
_CLIENT = "losswire.client"

UPWARD: tuple[tuple[str, str, str], ...] = (
    (f"{_SERVER}.errors", f"{_SERVER}.catalogue.record", "errors -> catalogue"),
    (f"{_SERVER}.memory.allocator", f"{_SERVER}.compute.reduce", "memory -> compute"),
    (f"{_SERVER}.compute.reduce", f"{_SERVER}.pipeline.encode", "compute -> pipeline"),
    (f"{_SERVER}.losses.margin", f"{_SERVER}.pipeline.encode", "losses -> pipeline"),
    (f"{_SERVER}.pipeline.encode", f"{_SERVER}.rpc.guard", "pipeline -> rpc"),
    (f"{_SERVER}.rpc.guard", f"{_SERVER}.app", "rpc -> app"),
    (f"{_CLIENT}._errors", f"{_CLIENT}._calls.retry", "_errors -> _calls"),
    (f"{_CLIENT}._messages.rows", f"{_CLIENT}._calls.retry", "_messages -> _calls"),
    (f"{_CLIENT}._calls.retry", f"{_CLIENT}._memory.region", "_calls -> _memory"),
    (f"{_CLIENT}._streams.core", f"{_CLIENT}._client", "_streams -> _client"),
    (f"{_CLIENT}._version", _SERVER, "client -> server"),
    ("losswire.wire._varint", f"{_CLIENT}._version", "wire -> client"),
    (f"{_SERVER}.pipeline.encode", "grpc", "pipeline -> grpc"),
)


@pytest.mark.parametrize(
    ("importer", "imported"), [pytest.param(a, b, id=name) for a, b, name in UPWARD]
)
def test_an_upward_import_is_found(tree: Path, importer: str, imported: str) -> None:
    """One wrong import, added to a module, breaks a contract, and the report names it."""
    done = _with_import(tree, importer, imported)
    assert done.returncode == 1
    assert f"{importer} -> {imported} " in done.stdout


def test_a_circle_within_a_folder_is_found(tree: Path) -> None:
    """Two modules of one folder must not need each other, even by way of others."""
    done = _with_import(tree, f"{_SERVER}.compute.tensors", f"{_SERVER}.compute.dispatch")
    assert done.returncode == 1
    assert f"No cycles are allowed in {_SERVER}.compute." in done.stdout


def test_a_module_without_a_layer_is_found(tree: Path) -> None:
    """A new module has to be given its place among the layers."""
    path = tree / "server/src/losswire/server/attic.py"
    path.write_text('"""A module that no layer names."""\n', "utf-8")
    try:
        done = _lint_imports(tree)
    finally:
        path.unlink()
    assert done.returncode == 1
    assert "losswire.server.attic" in done.stdout
