"""Sources stay small, and tests look at what callers see.

A test that reads or replaces a private name breaks with every change of the code behind it, and
passes when the behaviour is wrong. The few that need one say why here.
"""

import ast
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import slow_names

_ROOT = Path(__file__).parents[2]

LONGEST_FILE: Final = 400
"""Lines of a source or a test file."""

LONGEST_FUNCTION: Final = 60
"""Lines of a function, with its docstring."""

_SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "proto/src": ("*.py", "*.proto"),
    "client/src": ("*.py",),
    "server": ("*.py", "*.cc", "*.h"),
    "benchmarks": ("*.py",),
    "deploy": ("*.py",),
    "examples": ("*.py", "*.cc", "*.h", "*.go", "*.ts"),
    "tests": ("*.py",),
    "tools": ("*.py", "*.sh"),
}
"""The folders of sources and tests, and their kinds of file."""

_GENERATED: Final = {"build", "dist", "generated", "node_modules"}
"""The names of folders whose files nobody writes."""

MOST_EXCEPTIONS: Final = 10

EXCEPTIONS: Final[Mapping[tuple[str, str], str]] = {}
"""Which private names a test file uses, and why it cannot do without."""

_DOCUMENTED = ("_asdict", "_fields", "_fields_", "_make", "_replace", "_repr_html_")
"""Documented names of named tuples, of ctypes and of IPython, which other names are kept apart from
by their underscore."""

_PATCHES = ("setattr", "delattr", "getattr", "patch", "object")
"""The last names of functions that take an attribute's name as a string."""


def _files() -> Iterator[Path]:
    """Return the files that people write."""
    for folder, patterns in _SOURCES.items():
        for pattern in patterns:
            for path in (_ROOT / folder).rglob(pattern):
                if "_pb2" not in path.name and not _GENERATED & set(path.relative_to(_ROOT).parts):
                    yield path


def _is_private(name: str) -> bool:
    """Return whether a name starts with one underscore and is not documented."""
    return name.startswith("_") and not name.startswith("__") and name not in _DOCUMENTED


@cache
def _is_module(name: str) -> bool:
    """Return whether a dotted name is a module of this repository."""
    path = name.replace(".", "/")
    return any(_ROOT.glob(f"*/src/{path}.py")) or any(_ROOT.glob(f"*/src/{path}/__init__.py"))


def _private_names(node: ast.AST) -> Iterator[str]:
    """Return the private names of others that one node reads, imports or replaces."""
    if isinstance(node, ast.Attribute) and _is_private(node.attr):
        if ast.unparse(node.value) not in ("self", "cls", "os"):  # os._exit is documented
            yield node.attr
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("losswire"):
        for each in node.names:
            if _is_private(each.name) and not _is_module(f"{node.module}.{each.name}"):
                yield each.name
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in _PATCHES:
        for argument in node.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                last = argument.value.rpartition(".")[2]
                if _is_private(last) and last.isidentifier():
                    yield last


def _uses(tree: ast.AST) -> set[str]:
    """Return the private names that a test uses."""
    return {name for node in ast.walk(tree) for name in _private_names(node)}


@cache
def _parsed(path: Path) -> ast.Module:
    """Parse a file once."""
    return ast.parse(path.read_text("utf-8"))


def test_no_file_is_long() -> None:
    """A file has one purpose and fits a sitting; generated ones are not read."""
    lengths = {
        path.relative_to(_ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in _files()
    }
    assert len(lengths) > 100, "the files were not found"
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_no_function_is_long() -> None:
    """A function fits a screen."""
    long = {
        f"{path.relative_to(_ROOT).as_posix()}: {node.name}": node.end_lineno - node.lineno + 1
        for path in _files()
        if path.suffix == ".py"
        for node in ast.walk(_parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
        if node.end_lineno - node.lineno >= LONGEST_FUNCTION
    }
    assert long == {}


def test_tests_use_no_private_names() -> None:
    """Every use of a private name by a test is listed above with its reason, and still needed."""
    found = {
        (path.relative_to(_ROOT).as_posix(), name)
        for path in (_ROOT / "tests").rglob("*.py")
        for name in _uses(_parsed(path))
    }
    assert sorted(found - EXCEPTIONS.keys()) == []
    assert sorted(EXCEPTIONS.keys() - found) == []
    assert len(EXCEPTIONS) <= MOST_EXCEPTIONS


def test_pytest_enters_every_folder(pytestconfig: pytest.Config) -> None:
    """No folder of tests has a name that pytest passes over, such as `build`."""
    passed_over = pytestconfig.getini("norecursedirs")
    for folder in {path.parent for path in (_ROOT / "tests").rglob("test_*.py")}:
        for name in folder.relative_to(_ROOT).parts:
            assert not any(fnmatch(name, pattern) for pattern in passed_over), folder


def test_the_quick_tests_cover_every_folder() -> None:
    """slow.txt names what exists, and leaves tests in every folder that has any."""
    slow, every = slow_names(), set[str]()
    for path in (_ROOT / "tests").rglob("*.py"):
        every |= {function.name for function in _functions(path)}
        every.add(path.relative_to(_ROOT).as_posix())
    for folder in {path.parent for path in (_ROOT / "tests").rglob("test_*.py")}:
        quick = [
            function.name
            for path in folder.glob("test_*.py")
            if path.relative_to(_ROOT).as_posix() not in slow
            for function in _functions(path)
            if function.name.startswith("test_")
            and not slow & {function.name, *(each.arg for each in function.args.args)}
        ]
        assert quick, f"no quick test in {folder}"
    assert sorted(slow - every) == []


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    """Return the functions of a file."""
    return (node for node in ast.walk(_parsed(path)) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("client._session.close()", {"_session"}),
        ("monkeypatch.setattr(store, '_MOST', 2)", {"_MOST"}),
        ("monkeypatch.setattr('losswire.server.cli._run', spy)", {"_run"}),
        ("getattr(thing, '_hidden')", {"_hidden"}),
        ("from losswire.client.torch import _Function", {"_Function"}),
        ("from losswire.client import _errors", set()),
        ("from losswire.client._messages import arrays", set()),
        ("self._own = cls._shared", set()),
        ("point._replace(x=1); value.__class__; os._exit(0)", set()),
        ("monkeypatch.setattr(store, 'MOST', 2)", set()),
    ],
)
def test_private_uses_are_found(source: str, expected: set[str]) -> None:
    """The test above can fail: each kind of use is found, and what is public is not."""
    assert _uses(ast.parse(source)) == expected
