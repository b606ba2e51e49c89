"""The SDK's rooms import downwards only, and no modules import each other in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import losswire.client

_ROOT = Path(losswire.client.__file__).parent
_PACKAGE = "losswire.client"
_FLOORS = (
    ("_errors", "_allocator", "_version"),
    ("_messages",),
    ("_calls",),
    ("_memory",),
    ("_streams",),
    ("_client", "_async_client"),
    ("__init__",),
    ("cli", "torch", "jax"),
)
"""The rooms from the lowest to the highest."""


def _imports() -> dict[str, set[str]]:
    """Map each module to the modules of the SDK that it imports."""
    names = {
        ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in _ROOT.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_PACKAGE):
                base = (node.module or "").removeprefix(_PACKAGE).removeprefix(".")
                parts = [f"{base}.{each.name}".removeprefix(".") for each in node.names]
                imported |= {part if part in names else base or "__init__" for part in parts}
        found[name] = imported - {name}
    return found


def test_every_import_points_down() -> None:
    """A room imports itself and lower rooms."""
    floor = {room: number for number, rooms in enumerate(_FLOORS) for room in rooms}
    wrong = [
        (name, other)
        for name, imported in _imports().items()
        for other in imported
        if floor[other.split(".")[0]] > floor[name.split(".")[0]]
    ]
    assert wrong == []


def test_there_is_no_circle() -> None:
    """Modules can be ordered, so that each imports earlier ones only."""
    order = list(TopologicalSorter(_imports()).static_order())
    assert {"_client", "_memory.evaluate"} <= set(order)
