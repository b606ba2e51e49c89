"""Protobuf's variable-length integers."""

from typing import Final

_MORE: Final = 0x80
"""The bit that says that another byte follows."""

_MOST_BYTES: Final = 10

SIZE_BYTES: Final = 5
"""The most bytes of a tag or a length; protobuf refuses longer ones."""

_ALL_BITS: Final = (1 << 64) - 1


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


def read_varint(message: bytes, start: int, most: int = _MOST_BYTES) -> tuple[int, int]:
    """Read a number of at most so many bytes; gives it and where it ends.

    As protobuf does, it forgets what the last of ten bytes says beyond 64 bits. Raises ValueError
    where there is no number: the message ends before, or it would have more bytes.
    """
    value = 0
    for position, byte in enumerate(message[start : start + most]):
        value |= (byte & (_MORE - 1)) << (7 * position)
        if byte < _MORE:
            return value & _ALL_BITS, start + position + 1
    raise ValueError("not a number")
