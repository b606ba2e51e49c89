"""The values that a setting may have, as text of a command line or as values of a file.

Each function raises ValueError whose text says what the value is not.
"""

import math
from typing import Any, Final

from losswire.server.settings import call_log_fraction

_GRPC_LIMIT_MIB: Final = 2048
"""The size of a message in MiB that gRPC's counters and protobuf cannot hold any more."""
_BOOLS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def whole(value: Any) -> int:  # noqa: ANN401 (text, or what a file has)
    """Read a whole number that is not negative."""
    found = _whole(value)
    if found is None:
        message = f"{value} is not a whole number of at least 0"
        raise ValueError(message)
    return found


def positive(value: Any) -> int:  # noqa: ANN401 (likewise)
    """Read a whole number greater than 0."""
    found = _whole(value)
    if not found:
        message = f"{value} is not a whole number greater than 0"
        raise ValueError(message)
    return found


def message_size(value: Any) -> int:  # noqa: ANN401 (likewise)
    """Read a size in MiB that gRPC can count in bytes."""
    if positive(value) < _GRPC_LIMIT_MIB:
        return positive(value)
    message = f"{value} is not less than {_GRPC_LIMIT_MIB}"
    raise ValueError(message)


def seconds(value: Any) -> float:  # noqa: ANN401 (likewise)
    """Read a time that is finite and not negative."""
    found = _number(value)
    if 0 <= found < math.inf:
        return found
    message = f"{value} is not a number of seconds"
    raise ValueError(message)


def positive_seconds(value: Any) -> float:  # noqa: ANN401 (likewise)
    """Read a time that is finite and greater than 0."""
    if found := seconds(value):
        return found
    message = f"{value} is not a number of seconds greater than 0"
    raise ValueError(message)


def switch(value: Any) -> bool:  # noqa: ANN401 (likewise)
    """Read whether something is switched on."""
    found = value if isinstance(value, bool) else _BOOLS.get(str(value).strip().lower())
    if found is None:
        message = f"{value} is neither true nor false"
        raise ValueError(message)
    return found


def names(value: Any) -> tuple[str, ...]:  # noqa: ANN401 (likewise)
    """Read names: a list of a file, or text with commas between them."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(each, str) for each in parts):
        message = f"{value} is not a list of texts"
        raise ValueError(message)
    return tuple(each.strip() for each in parts if each.strip())


def text(value: Any) -> str:  # noqa: ANN401 (likewise)
    """Read a text."""
    if isinstance(value, str):
        return value
    message = f"{value} is not a text"
    raise ValueError(message)


def call_log(value: Any) -> str:  # noqa: ANN401 (likewise)
    """Read which calls have a line in the log."""
    call_log_fraction(str(value))
    return str(value)


def one_of(*words: str) -> Any:  # noqa: ANN401 (likewise)
    """Return what reads one of some words."""

    def read(value: Any) -> str:  # noqa: ANN401 (likewise)
        if value in words:
            return str(value)
        message = f"{value} is none of {', '.join(words)}"
        raise ValueError(message)

    return read


def _whole(value: Any) -> int | None:  # noqa: ANN401 (likewise)
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    return value if type(value) is int and value >= 0 else None


def _number(value: Any) -> float:  # noqa: ANN401 (likewise)
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
