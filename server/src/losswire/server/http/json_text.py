"""JSON, to and from Python values."""

import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson

from losswire.server.errors import MalformedMessageError, OverLimitError
from losswire.server.http import limits

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKETS: Final = b"[{]}"
_OTHERS: Final = bytes(each for each in range(256) if each not in _BRACKETS)


def dump(content: Any) -> bytes:  # noqa: ANN401 (whatever JSON can hold)
    """Return a value as JSON; its floats must have passed `json_number`, others become null."""
    return orjson.dumps(content)


def load(text: bytes | bytearray, describe: Callable[[orjson.JSONDecodeError], str] = str) -> Any:  # noqa: ANN401 (likewise)
    """Parse JSON; `describe` says what is wrong with it.

    Raises MalformedMessageError when it is none, and OverLimitError when it is nested too deeply.
    """
    deepest = limits.MAX_JSON_DEPTH
    # Brackets inside of strings count for nothing; they are rare enough to look twice.
    if _depth(text) > deepest and _depth(_STRING.sub(b"", text)) > deepest:
        message = f"the JSON is nested more than {deepest} deep"
        raise OverLimitError(message)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        message = f"the body is not JSON: {describe(error)}"
        raise MalformedMessageError(message) from None


def _depth(text: bytes | bytearray) -> int:
    """Return how deep brackets are nested, those inside of strings included."""
    brackets = np.frombuffer(text.translate(None, _OTHERS), np.uint8)
    opens = (brackets == _BRACKETS[0]) | (brackets == _BRACKETS[1])
    return int(np.cumsum(np.where(opens, 1, -1)).max(initial=0))


def parsed_bytes(text: bytes | bytearray) -> int:
    """Return the most memory that the values of a JSON text take, in bytes."""
    numbers = text.count(b",") + text.count(b":")
    containers = text.count(b"[") + text.count(b"{")
    texts = text.count(b'"') // 2
    return len(text) + numbers * 40 + containers * 120 + texts * 60


def parser_bytes(text: bytes | bytearray | memoryview) -> int:
    """Return the memory that parsing a JSON text takes besides its values, in bytes."""
    return len(text) * limits.JSON_PARSER_COPIES
