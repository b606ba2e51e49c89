"""Protobuf's variable-length integers."""

from typing import Final

_MORE: Final = 0x80
"""The bit that says that another byte follows."""

_MOST_BYTES: Final = 10


def varint(number: int) -> bytes:
    """Write a number that is not negative."""
    if number < _MORE:
        return number.to_bytes()
    digits = bytearray()
    while number >= _MORE:
        digits.append(number & (_MORE - 1) | _MORE)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def read_varint(message: bytes, start: int) -> tuple[int, int]:
    """Read a number; gives it and where it ends.

    Raises ValueError where there is none: the message ends before, or it would have more than
    64 bits.
    """
    value = 0
    for position, byte in enumerate(message[start : start + _MOST_BYTES]):
        value |= (byte & (_MORE - 1)) << (7 * position)
        if byte < _MORE:
            return value, start + position + 1
    raise ValueError("not a number of at most 64 bits")
