"""Imports between the folders of the server point down: from commands to records, never back."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_SERVER = Path(__file__).parents[2] / "server/src/losswire/server"

ROOMS = (
    ("__main__", "cli", "docs"),
    ("app",),
    ("rpc",),
    ("prepared",),
    ("pipeline",),
    ("losses",),
    ("declare", "compute"),
    ("memory",),
    ("catalogue",),
    ("errors", "settings", "thresholds", "__init__"),
)
"""The folders and modules of the server, from the highest floor to the lowest."""

_FLOORS = {name: floor for floor, names in enumerate(ROOMS) for name in names}


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the imported names of a module, without those for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        else:
            yield from _imports(node)


def _room(name: str) -> str:
    """Return the room of `losswire.server.ROOM...`; a name of the package itself is `__init__`."""
    room = name.split(".")[2]
    return room if room in _FLOORS else "__init__"


def upward(root: Path) -> list[str]:
    """Return every import from a floor to a higher one."""
    return [
        f"{path.relative_to(root)} imports {name}"
        for path in sorted(root.rglob("*.py"))
        for name in _imports(ast.parse(path.read_text(encoding="utf-8")))
        if name.startswith("losswire.server.")
        and _FLOORS[_room(name)] < _FLOORS[path.relative_to(root).parts[0].removesuffix(".py")]
    ]


def test_imports_point_down() -> None:
    """No module of the server imports one of a higher floor."""
    assert upward(_SERVER) == []


def test_every_room_has_its_floor() -> None:
    """The table above lists all folders and modules of the server, and no others."""
    found = {path.stem for path in _SERVER.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__pycache__"} == set(_FLOORS)


@pytest.mark.parametrize(
    ("place", "text", "expected"),
    [
        ("pipeline/a.py", "from losswire.server.rpc.status import x", True),
        ("errors.py", "def f():\n    from losswire.server import app", True),
        ("memory/regions/a.py", "import losswire.server.compute.work", True),
        ("rpc/a.py", "from losswire.server.pipeline import encode", False),
        ("memory/a.py", "if TYPE_CHECKING:\n    from losswire.server.compute import x", False),
        ("rpc/a.py", "from losswire.server import __version__, thresholds", False),
    ],
)
def test_upward_imports_are_found(tmp_path: Path, place: str, text: str, *, expected: bool) -> None:
    """The first test can fail."""
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    assert bool(upward(tmp_path)) == expected
