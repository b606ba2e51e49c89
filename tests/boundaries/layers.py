"""Reads the imports of a source tree and says which of them cross a boundary."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LAYERS: Final[Mapping[str, tuple[str, ...]]] = {
    "proto": ("losswire.summaries", "losswire.v1", "losswire.wire"),
    "client": ("losswire.client",),
    "server": ("losswire.server",),
}
"""The packages of each distribution; a folder is a distribution is a layer."""

ARROWS: Final[Mapping[str, tuple[str, ...]]] = {
    "proto": ("proto",),
    "client": ("client", "proto"),
    "server": ("server", "proto"),
}
"""Which layers each layer may import."""

FORBIDDEN: Final[Mapping[str, tuple[str, ...]]] = {
    "proto": ("torch", "pickle", "marshal", "shelve", "dill", "cloudpickle"),
    "client": ("torch", "pickle", "marshal", "shelve", "dill", "cloudpickle"),
    "server": ("pickle", "marshal", "shelve", "dill", "cloudpickle"),
}
"""What no module of a layer may import, from anywhere."""

OPTIONAL: Final[Mapping[str, str]] = {"losswire.client.torch": "torch"}
"""Modules for those who have what their layer does without; no other module imports them."""

_CALLS: Final = ("eval", "exec", "compile", "__import__", "torch.load")
"""What no module may call: it would make code out of data."""

_LOADERS: Final = ("numpy.load", "np.load")
"""Functions that may be called only with `allow_pickle=False`."""


@dataclass(frozen=True, order=True)
class Breach:
    """One place that crosses a boundary."""

    path: str
    what: str


def breaches(root: Path) -> list[Breach]:
    """Return every breach of a tree that has the layers' folders, each with `src`."""
    return sorted(
        Breach(str(path.relative_to(root)), what)
        for layer in LAYERS
        for path in sorted((root / layer / "src").rglob("*.py"))
        for what in _in_file(path, root / layer / "src", layer)
    )


def _in_file(path: Path, source: Path, layer: str) -> Iterator[str]:
    """Return the breaches in one file."""
    parts = path.relative_to(source).with_suffix("").parts
    package = ".".join(parts[:2])
    if parts == ("losswire", "__init__"):
        yield "closes the namespace losswire"
    elif package not in LAYERS[layer]:
        yield f"{package} does not belong to {layer}"
    generated = "_pb2" in path.name
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        for name in _imported(node, parts):
            if OPTIONAL.get(".".join(parts)) != name.split(".", 1)[0]:
                yield from _wrong_import(name, layer)
        if isinstance(node, ast.Assert) and not generated:
            yield "guards with assert, which -O removes"
        if isinstance(node, ast.Call):
            yield from _wrong_call(node)


def _wrong_call(node: ast.Call) -> Iterator[str]:
    """Return the breaches in one call."""
    called = ast.unparse(node.func)
    safe = any(ast.unparse(each) == "allow_pickle=False" for each in node.keywords)
    if called in _CALLS or (called in _LOADERS and not safe):
        yield f"calls {called}"


def _imported(node: ast.AST, parts: tuple[str, ...]) -> Iterator[str]:
    """Return the absolute names that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
        module = ".".join(filter(None, [base, node.module]))
        yield from (f"{module}.{each.name}" for each in node.names)


def _wrong_import(name: str, layer: str) -> Iterator[str]:
    """Return the breaches in one import."""
    if name.split(".", maxsplit=1)[0] in FORBIDDEN[layer]:
        yield f"imports {name}"
    if any(f"{name}.".startswith(f"{each}.") for each in OPTIONAL):
        yield f"imports {name}, which is optional"
    if not name.startswith("losswire."):
        return
    allowed = [package for each in ARROWS[layer] for package in LAYERS[each]]
    if ".".join(name.split(".")[:2]) not in allowed:
        yield f"imports {name}"
