"""Paths, folders, patterns and URIs as files in a fixed order."""

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from losswire.client._data.formats import FORMATS, File
from losswire.summaries.columns.arrow import pyarrow

_URI: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_COMPRESSIONS: Final = {".gz", ".bz2", ".zst", ".lz4", ".br"}
_MAGIC: Final = {b"PAR1": "parquet", b"ARRO": "ipc"}
"""The formats of files whose names say nothing, by their first bytes."""
_NULL_FOLDER: Final = "__HIVE_DEFAULT_PARTITION__"
_MAX_KEY_BYTES: Final = 1024
_LISTED: Final = 5


def is_path(value: object) -> bool:
    """Return whether a value is a path or a URI."""
    return isinstance(value, (str, os.PathLike))


def files_of(paths: Sequence[str | os.PathLike[str]]) -> list[File]:
    """Return the files that some paths, folders, patterns and URIs stand for.

    Those of a folder or pattern are in the order of their paths. Names that begin with `.` or
    `_` are left out, and what is of no known format. The key of a file is its path as given, its
    URI, or, where one local folder was given, its path in it.

    Raises FileNotFoundError for a path that is not there, and ValueError for a folder without
    data, an unknown format and a file that is given twice.
    """
    files = [file for path in paths for file in _files_of_one(path, alone=len(paths) == 1)]
    keys: set[str] = set()
    for file in files:
        if file.key in keys:
            raise ValueError(f'the file "{file.key}" is given twice')
        keys.add(file.key)
    if not files:
        raise ValueError("no files were given")
    return files


@dataclass(frozen=True)
class _Root:
    """A file system, and how paths in it are shown: without credentials and parameters."""

    filesystem: Any
    """The pyarrow file system; None: the local one."""
    base: str = ""
    """The path of its root, such as the bucket."""
    shown: str = ""
    """What stands for the base in keys and errors."""

    def key(self, path: str) -> str:
        """Return the key of a path in the file system."""
        return self.shown + path[len(self.base) :]

    @property
    def system(self) -> Any:
        """The file system."""
        return self.filesystem or pyarrow("fs").LocalFileSystem()


def _root_of(text: str) -> tuple[_Root, str]:
    """Return the file system of a path or URI, and the path in it."""
    if not _URI.match(text):
        return _Root(None), text
    parts = urlsplit(text)
    if parts.scheme == "file":
        return _Root(None), unquote(parts.path)
    user, _, host = parts.netloc.rpartition("@")
    # An access key with its secret; for Azure this is the container.
    shown = f"{parts.scheme}://{host if ':' in user else parts.netloc}"
    query = f"?{parts.query}" if parts.query else ""
    try:
        filesystem, base = pyarrow("fs").FileSystem.from_uri(
            f"{parts.scheme}://{parts.netloc}/{query}"
        )
    except (ValueError, OSError, pyarrow().ArrowException) as error:
        reason = str(error).partition(parts.netloc)[0] if user else str(error)
        raise ValueError(
            f'"{shown}{parts.path}" cannot be opened: {reason}; a pyarrow dataset may use any '
            "file system"
        ) from (None if user else error)
    base = base.rstrip("/")
    return _Root(filesystem, base, shown), base + parts.path


def _files_of_one(given: str | os.PathLike[str], *, alone: bool) -> Iterator[File]:
    """Yield the files that one path stands for."""
    text = os.fspath(given)
    if not isinstance(text, str):
        raise TypeError(f"a path must be a str or a Path, not {type(given).__name__}")
    root, path = _root_of(text)
    kinds = pyarrow("fs").FileType
    kind = root.system.get_file_info(path.rstrip("/") or path).type
    if kind == kinds.File:
        yield _file(root, path, root.key(path), _kind_of(path) or _sniffed(root, path))
    elif kind == kinds.Directory:
        folder = path.rstrip("/") + "/"
        relative = alone and root.filesystem is None
        found = [each.path for each in _listed(root, path.rstrip("/") or "/") if each.is_file]
        yield from _known(root, found, folder if relative else "", root.key(path))
    elif _is_pattern(path):
        yield from _known(root, _matches(root, path), "", root.key(path))
    else:
        raise FileNotFoundError(f'there is no file or folder "{root.key(path)}"')


def _known(root: _Root, paths: list[str], folder: str, shown: str) -> Iterator[File]:
    """Yield the files of known formats; keys are relative to the folder if one is given."""
    known = [(path, kind) for path in paths if (kind := _kind_of(path)) is not None]
    if not known:
        there = ", ".join(PurePosixPath(path).name for path in paths[:_LISTED])
        raise ValueError(
            f'no file of a known format is in "{shown}" ({", ".join(FORMATS)}); '
            f"there is {there or 'nothing'}"
        )
    for path, kind in known:
        yield _file(root, path, path.removeprefix(folder) if folder else root.key(path), kind)


def _file(root: _Root, path: str, key: str, kind: str) -> File:
    if len(key.encode()) > _MAX_KEY_BYTES:
        raise ValueError(f'the path "{key}" has more than {_MAX_KEY_BYTES} bytes')
    # Another process, with another current folder, may read it.
    whole = path if root.filesystem is not None else str(Path(path).absolute())
    return File(
        path=whole,
        key=key,
        kind=kind,
        filesystem=root.filesystem,
        constants=_constants_in(path),
    )


def _listed(root: _Root, folder: str, *, recursive: bool = True) -> list[Any]:
    """Return what is in a folder in the order of the paths, without what is hidden."""
    selector = pyarrow("fs").FileSelector(folder, recursive=recursive)
    start = folder.rstrip("/") + "/"
    found = root.system.get_file_info(selector)
    shown = [each for each in found if not _is_hidden(each.path.removeprefix(start))]
    return sorted(shown, key=lambda each: str(each.path))


def _is_hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) and "=" not in part for part in path.split("/"))


def _is_pattern(path: str) -> bool:
    return any(mark in path for mark in "*?[")


def _matches(root: _Root, pattern: str) -> list[str]:
    """Return the files that a pattern matches; `**` is any number of folders."""
    parts = pattern.split("/")
    fixed = next(index for index, part in enumerate(parts) if _is_pattern(part))
    folder = "/".join(parts[:fixed]) or ("/" if fixed else ".")
    if root.system.get_file_info(folder).type != pyarrow("fs").FileType.Directory:
        raise FileNotFoundError(f'there is no folder "{root.key(folder)}"')
    found = [folder]
    for index, part in enumerate(parts[fixed:], fixed + 1):
        if part == "**":
            start = len(folder.rstrip("/")) + 1
            wanted = re.compile(_expression(parts[fixed:]))
            below = (each.path for each in _listed(root, folder) if each.is_file)
            found = [path for path in below if wanted.fullmatch(path[start:])]
            break
        wanted = re.compile(_expression([part]))
        found = [
            each.path
            for parent in found
            for each in _listed(root, parent, recursive=False)
            if wanted.fullmatch(each.base_name) and each.is_file == (index == len(parts))
        ]
    return [path.removeprefix("./") for path in found]


def _expression(parts: Sequence[str]) -> str:
    """Return the regular expression of the parts of a pattern."""
    parts = [
        "(?:[^/]+/)*" if part == "**" else _SEGMENT.sub(_translated, part) + "/" for part in parts
    ]
    return "".join(parts).removesuffix("/")


_SEGMENT: Final = re.compile(r"\[!?[^]]+\]|.")


def _translated(match: re.Match[str]) -> str:
    text = match.group()
    if text.startswith("[") and text.endswith("]"):
        return fnmatch.translate(text).removeprefix("(?s:").partition(")")[0]
    return {"*": "[^/]*", "?": "[^/]"}.get(text, re.escape(text))


def _kind_of(path: str) -> str | None:
    """Return the format of a file by its name; None if it is not known."""
    name = PurePosixPath(path)
    compressed = name.suffix.lower() in _COMPRESSIONS
    kind = FORMATS.get((name.with_suffix("") if compressed else name).suffix.lower().lstrip("."))
    return None if compressed and kind not in {"csv", "json"} else kind


def _sniffed(root: _Root, path: str) -> str:
    """Return the format of a file by its first bytes."""
    with root.system.open_input_file(path) as source:
        kind = _MAGIC.get(source.read(4))
    if kind is None:
        raise ValueError(
            f'"{root.key(path)}" is of no known format: its name has none of the suffixes '
            f"{', '.join(FORMATS)}"
        )
    return kind


def _constants_in(path: str) -> dict[str, str | int | None]:
    """Return the columns that the folders of a path name, as in `country=DE/part-0.parquet`."""
    named = (part.partition("=") for part in path.split("/")[:-1] if "=" in part)
    return {unquote(name): _constant(unquote(value)) for name, _, value in named if name}


def _constant(text: str) -> str | int | None:
    if text == _NULL_FOLDER:
        return None
    return int(text) if _INTEGER.fullmatch(text) else text


_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
