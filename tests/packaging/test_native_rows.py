"""The build hook of the server: wheels with a C++ compiler and without one."""

import importlib.machinery
import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hatchling.bridge.app import Application
from packaging.tags import parse_tag, platform_tags

_SERVER = Path(__file__).resolve().parents[2] / "server"
_LIBRARY = "src/losswire/server/compute/native/librows.so"

_COMPILES = """#!/bin/sh
for each; do
    if [ "$last" = -o ]; then echo library >"$each"; fi
    last=$each
done
"""
_FAILS = """#!/bin/sh
echo 'this compiler is of no use' >&2
exit 1
"""

Build = Callable[..., dict[str, Any]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the files that the hook reads, with a library of an earlier build; no compiler."""
    shutil.copytree(_SERVER / "native", tmp_path / "native")
    library = tmp_path / _LIBRARY
    library.parent.mkdir(parents=True)
    library.write_text("stale\n")
    for name in ("CXX", "LOSSWIRE_REQUIRE_NATIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    monkeypatch.setattr(shutil, "which", lambda name: None)  # noqa: ARG005 (shutil's)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # noqa: ARG005 (importlib's)
    return tmp_path


@pytest.fixture
def build(project: Path) -> Build:
    """Run the hook; returns its build data."""
    loader = importlib.machinery.SourceFileLoader("hatch_build", str(_SERVER / "hatch_build.py"))
    module = importlib.util.module_from_spec(
        importlib.machinery.ModuleSpec("hatch_build", loader, origin=loader.path)
    )
    loader.exec_module(module)

    def run() -> dict[str, Any]:
        hook = module.CustomBuildHook(
            str(project), {}, None, None, str(project / "dist"), "wheel", Application()
        )
        found: dict[str, Any] = {"artifacts": [], "pure_python": True}
        hook.initialize("standard", found)
        return found

    return run


def _program(folder: Path, text: str) -> str:
    path = folder / "compiler"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_with_a_compiler_the_wheel_is_of_this_platform(
    project: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the library, and any Python may load that."""
    monkeypatch.setenv("CXX", _program(project, _COMPILES) + " -pipe")
    found = build()
    assert found["artifacts"] == [_LIBRARY]
    assert found["pure_python"] is False
    [tag] = parse_tag(found["tag"])
    assert (tag.interpreter, tag.abi) == ("py3", "none")
    assert tag.platform in set(platform_tags())
    assert (project / _LIBRARY).read_text() == "library\n"
    assert [each.name for each in (project / _LIBRARY).parent.iterdir()] == ["librows.so"]


@pytest.mark.parametrize("which", ["none", "fails", "missing"])
@pytest.mark.parametrize("required", [None, "0", "1"])
def test_without_a_compiler_the_wheel_is_of_any_platform(
    project: Path,
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    which: str,
    required: str | None,
) -> None:
    """A warning says why, no older library is left; if one is required, that is an error."""
    says = "there is no C++ compiler"
    if which != "none":
        says = "this compiler is of no use" if which == "fails" else "No such file"
        path = _program(project, _FAILS) if which == "fails" else str(project / "nothing")
        monkeypatch.setenv("CXX", path)
    if required is not None:
        monkeypatch.setenv("LOSSWIRE_REQUIRE_NATIVE", required)
    if required == "1":
        with pytest.raises(SystemExit, match=re.escape(says)):
            build()
    else:
        assert build() == {"artifacts": [], "pure_python": True}
        told = "".join(capsys.readouterr())
        assert says in told
        assert "Everything will be computed by torch" in told
    assert not list((project / _LIBRARY).parent.iterdir())


def test_compilers_are_tried_in_turn(
    project: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that knows no C++ does not keep the next one from being asked."""
    (project / "second").mkdir()
    programs = {"cc": _program(project, _FAILS), "clang": _program(project / "second", _COMPILES)}
    monkeypatch.setattr(shutil, "which", programs.get)
    assert build()["artifacts"] == [_LIBRARY]
