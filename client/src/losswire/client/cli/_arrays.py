"""Arrays from the command line and to files: .npy, .npz, .csv, and numbers written as JSON."""

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.client.cli._common import UsageError
from losswire.wire import BY_NAME

Array = npt.NDArray[Any]

_INTEGERS_ONLY = re.compile(r"[\d\s,+-]*")
_LONGEST = 200
"""How much of an argument an error repeats."""
_KEY = re.compile(r"(?P<file>.+\.npz):(?P<key>.+)", re.DOTALL)


def dtype_named(name: str) -> np.dtype[Any]:
    """Return a dtype of the wire by name, such as `bfloat16`."""
    if name not in BY_NAME:
        message = f"there is no dtype {name!r}; there are {', '.join(BY_NAME)}"
        raise UsageError(message)
    return BY_NAME[name].numpy


@dataclass(frozen=True, slots=True)
class Wanted:
    """The use of an array on the command line."""

    name: str
    """The name of the input, or of another argument."""
    indices: bool = False
    """Whether numbers that are all written as integers stay integers."""
    floating: np.dtype[Any] | None = None
    """The type of all floating numbers; None: `number` for text, files keep theirs."""
    number: np.dtype[Any] = BY_NAME["float32"].numpy
    """The type of numbers in text, where `floating` is None."""


def read(text: str, wanted: Wanted) -> Array:
    """Read an array: JSON when it begins as a list or number does, else a file."""
    try:
        if text[:1] in tuple("[-0123456789") and Path(text).suffix not in _READERS:
            array = _from_text(np.asarray(json.loads(text)), wanted)
        else:
            array = _from_file(text, wanted)
    except UsageError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error).partition(";")[0]
        message = f"{wanted.name}: cannot read {_shortened(text)}: {reason}"
        raise UsageError(message) from error
    if wanted.floating is not None and _is_floating(array):
        return cast(array, wanted.floating)
    return array


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Convert, where a number that is too large for a float becomes infinity."""
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def write(path: str, array: Array) -> None:
    """Write an array to a .npy or .csv file; bfloat16, which neither has, as float32."""
    writer = _WRITERS.get(Path(path).suffix)
    if writer is None:
        message = f"cannot write {path}: expected a name that ends in {' or '.join(_WRITERS)}"
        raise UsageError(message)
    if array.dtype == BY_NAME["bfloat16"].numpy:
        array = array.astype(np.float32)
    try:
        writer(path, array)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise UsageError(message) from error


def _is_floating(array: Array) -> bool:
    # ml_dtypes' types are of kind "V", like the unnamed bytes that numpy makes of them in files.
    return array.dtype.kind == "f" or array.dtype == BY_NAME["bfloat16"].numpy


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4] + " ..."


def _from_text(array: Array, wanted: Wanted) -> Array:
    """Convert numbers that were text to their dtype."""
    if wanted.indices and not array.size:
        return array.astype(np.int64)
    if array.dtype.kind == "b" or (array.dtype.kind == "i" and wanted.indices):
        return array
    if array.dtype.kind not in "iuf":
        raise ValueError("it holds something else than numbers that fit int64 or float64")
    return cast(array, wanted.floating or wanted.number)


def _from_file(text: str, wanted: Wanted) -> Array:
    reader = _READERS.get(Path(_KEY.sub(r"\g<file>", text)).suffix)
    if reader is None:
        message = (
            f"{wanted.name}: cannot read {_shortened(text)}: expected JSON such as [[2.0, 1.0]], "
            f"or a file that ends in {', '.join(_READERS)}"
        )
        raise UsageError(message)
    return reader(text, wanted)


def _read_numpy(text: str, wanted: Wanted) -> Array:
    """Read a .npy file, or of a .npz file the array of the key, of the name, or the only one."""
    match = _KEY.fullmatch(text)
    loaded = _load(match["file"] if match else text)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded as archive:
        names = archive.files
        key = match["key"] if match else names[0] if len(names) == 1 else wanted.name
        if key not in names:
            message = f"it has no array {key!r}, but {', '.join(names) or 'none at all'}"
            raise ValueError(message)
        array: Array = archive[key]
        return array


def _load(file: str) -> Any:
    """Open a file of numpy's; for any other file, numpy's own error is about pickles."""
    with Path(file).open("rb") as opened:
        damaged = opened.read(2) == b"PK" and not zipfile.is_zipfile(opened)
    try:
        if not damaged:
            return np.load(file, allow_pickle=False)
    except (EOFError, ValueError):
        damaged = True
    raise ValueError("it is damaged, or holds something else than numbers")


def _read_csv(file: str, wanted: Wanted) -> Array:
    """Read numbers with commas between them; one in each line makes a vector."""
    text = Path(file).read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError("it is empty")
    whole = wanted.indices and _INTEGERS_ONLY.fullmatch(text) is not None
    array = np.loadtxt(
        text.split("\n"),
        dtype=np.int64 if whole else np.float64,
        delimiter=",",
        comments=None,
        ndmin=2 if "," in text else 1,
    )
    return _from_text(array, wanted)


def _write_npy(path: str, array: Array) -> None:
    with Path(path).open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _write_csv(path: str, array: Array) -> None:
    if array.ndim > 2:  # noqa: PLR2004 (lines and commas)
        message = f"cannot write {path}: an array of {array.ndim} axes does not fit a .csv file"
        raise UsageError(message)
    with Path(path).open("w", encoding="utf-8") as file:
        file.writelines(
            ",".join(map(str, np.atleast_1d(row))) + "\n" for row in np.atleast_1d(array)
        )


_READERS: dict[str, Callable[[str, Wanted], Array]] = {
    ".npy": _read_numpy,
    ".npz": _read_numpy,
    ".csv": _read_csv,
}
_WRITERS: dict[str, Callable[[str, Array], None]] = {".npy": _write_npy, ".csv": _write_csv}
