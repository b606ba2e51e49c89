"""Protobuf's variable-length integers."""

from typing import Final

_MORE: Final = 0x80
"""The continuation bit: another byte follows."""

_MAX_BYTES: Final = 10

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


def read_varint(message: bytes, start: int, max_bytes: int = _MAX_BYTES) -> tuple[int, int]:
    """Read a number of at most `max_bytes`; returns it and the offset where it ends.

    Ignores the bits beyond 64 in the last of ten bytes, as protobuf does. Raises ValueError where
    there is no number: the message ends before, or it would have more bytes.
    """
    value = shift = 0
    stop = start
    for byte in message[start : start + max_bytes]:
        stop += 1
        if byte < _MORE:
            return (value | byte << shift) & _ALL_BITS, stop
        value |= (byte & (_MORE - 1)) << shift
        shift += 7
    raise ValueError("not a number")
