"""The table of bucket indices: which float64 are asked for, at which scales."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from math import inf, nextafter

from mpmath import mp, mpf

from tests.conformance.summaries.definition import bucket_index

SCALES = range(-4, 9)
LARGEST = 1.7976931348623157e308
SMALLEST_NORMAL = 2.0**-1022
_COMMON = (
    5e-324,
    1e-323,
    2.0**-1073,
    2.0**-1050,
    2.0**-1023,
    SMALLEST_NORMAL,
    1e-300,
    2.0**-16,
    0.1,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.141592653589793,
    10.0,
    16.0,
    2.0**16,
    1e6,
    1e300,
    2.0**1008,
    2.0**1023,
    LARGEST,
)
_RECORD = struct.Struct("<dii")


def entries() -> list[tuple[float, int, int]]:
    """Return value, scale and index, of each entry."""
    return [
        (value, scale, bucket_index(value, scale)) for scale in SCALES for value in values(scale)
    ]


def values(scale: int) -> list[float]:
    """Return the values of a scale: common ones and bounds, each with its neighbours."""
    found = {*_COMMON, *_bounds(scale)}
    for value in tuple(found):
        found |= {nextafter(value, 0.0), nextafter(value, inf)}
    return sorted(found - {0.0, inf})


def _bounds(scale: int) -> Iterator[float]:
    """Yield the float64 nearest to some bounds of buckets, of which most are irrational."""
    if scale <= 0:
        yield from (2.0 ** (each << -scale) for each in (-3, -1, 0, 1, 5) if each << -scale > -1074)
        return
    count = 1 << scale
    step = max(count // 8, 1)
    positions = {*range(0, count, step), 1, count - 1}
    for position in sorted(positions):
        with mp.workdps(60):
            bound = mpf(2) ** (mpf(position) / count)
        for exponent in (0, -1040):
            yield float(Fraction(int(mp.ldexp(bound, 150)), 1 << 150) * Fraction(2) ** exponent)


def binary() -> bytes:
    """Write the entries as records of 16 bytes: a float64 and two int32, little-endian."""
    return b"".join(_RECORD.pack(*each) for each in entries())


def lines() -> Iterator[str]:
    """Write the entries as JSON, one to a line: bits, value, scale, index."""
    for value, scale, index in entries():
        bits = struct.pack(">d", value).hex()
        yield f'["{bits}", "{value!r}", {scale}, {index}]'
