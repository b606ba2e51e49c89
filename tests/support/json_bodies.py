"""JSON bodies with long arrays of numbers, right and spoilt; the same seed makes the same ones."""

import random
from collections.abc import Callable, Sequence
from typing import Final

_BLANKS: Final = ("", "", "", " ", "\n", "\t", "\r\n")
_NAMES: Final = ("a", "\u00e9", "\U0001f600", 'b\\"', "x[", "y]", "{", "loss")
_WORDS: Final = ('"NaN"', '"Infinity"', '"-Infinity"')
_EDGES: Final = (
    *("-0", "0", "-0.0", "0.0", "0e5", "-0E-3", "1E5", "1e+5", "5e-324", "2e-324", "1e-400"),
    *("9223372036854775807", "-9223372036854775808", "9007199254740993", "1e307", "1e23"),
    *("123456789012345678.5", "0.30000000000000004", "1.7976931348623157e308"),
)
_UNUSUAL: Final = (
    *("9223372036854775808", "-9223372036854775809", "18446744073709551616", "1e999", "null"),
    *('"x"', '"N\\u0061N"', "{}", "[]", "true", "01", "1.", ".5", "+1", "1e", "-", "1e308", "NaN"),
)
_SPOILING: Final = b'[]{},:"\\0123eE.-+ \n\x00\xff\xc3tfNI'


class Bodies:
    """Makes bodies."""

    def __init__(self, seed: int) -> None:
        """Begin with a seed."""
        self.draw = random.Random(seed)  # noqa: S311 (not for secrets)

    def whole(self) -> str:
        """Return an integer of up to 19 digits."""
        return str(self.draw.randrange(-(10**18), 10**18) // 10 ** self.draw.randrange(19))

    def digits(self) -> str:
        """Return a number with many digits, or halfway between two doubles."""
        most = self.draw.randrange(1, 40)
        text = str(self.draw.randrange(10 ** (most - 1), 10**most))
        half = str(2 * self.draw.randrange(1 << 52, 1 << 53) + 1)
        return self.draw.choice((f"{text[0]}.{text}", f"{half}.0", f"{half}e{most}"))

    def real(self) -> str:
        """Return a number with a point or an exponent."""
        size = self.draw.uniform(-1, 1)
        exponent = self.draw.randrange(-340, 290)
        forms = (repr(size), repr(size * 10.0 ** (exponent % 300)), f"{size:.3}e{exponent}")
        return self.draw.choice((*forms, f"{self.draw.getrandbits(63)}e{exponent % 60 - 30}"))

    def number(self) -> str:
        """Return any element of an array of numbers."""
        kinds = (self.whole, self.digits, self.real)
        edges = (self.draw.choice(_EDGES), self.draw.choice(_WORDS))
        return self.draw.choice((self.draw.choice(kinds)(), *edges))

    def element(self) -> Callable[[], str]:
        """Return what makes the elements of one array."""
        unusual = self.draw.random() < _UNUSUAL_SHARE
        word = self.draw.choice((*_UNUSUAL, *_WORDS))
        return self.draw.choice(
            (
                self.number,
                self.whole,
                self.real,
                lambda: self.draw.choice(("true", "false")),
                lambda: word if unusual and self.draw.random() < _UNUSUAL_SHARE else self.number(),
            )
        )

    def blank(self) -> str:
        """Return what may be between two parts of JSON."""
        return self.draw.choice(_BLANKS)

    def array(self, shape: Sequence[int], element: Callable[[], str]) -> str:
        """Return an array, now and then a ragged one."""
        if not shape:
            return element()
        rows = [self.array(shape[1:], element) for _ in range(shape[0])]
        if self.draw.random() < _RAGGED_SHARE:
            rows.pop()
        return f"[{self.blank()}{f'{self.blank()},{self.blank()}'.join(rows)}{self.blank()}]"

    def numbers(self) -> str:
        """Return an array about as long as those that are read by themselves."""
        axes = self.draw.choice((1, 1, 2, 3, 7, 8, 9))
        sizes = {1: [self.draw.randrange(50, 90)], 2: [9, self.draw.randrange(5, 12)], 3: [4, 5, 4]}
        return self.array(sizes.get(axes, [2] * axes), self.element())

    def value(self, depth: int = 0) -> str:
        """Return any value of JSON."""
        kind = self.draw.randrange(8)
        inner = range(self.draw.randrange(4))
        if kind == 0 and depth < _DEEPEST:
            fields = [f'"{self.draw.choice(_NAMES)}":{self.value(depth + 1)}' for _ in inner]
            return f"{{{self.blank()}{','.join(fields)}}}"
        if kind == 1 and depth < _DEEPEST:
            return f"[{','.join(self.value(depth + 1) for _ in inner)}{self.blank()}]"
        if kind == 2:
            return self.draw.choice((self.number(), '"te\\\\xt [1,2] \u00e9"', "null", "true"))
        return self.numbers()

    def body(self) -> bytes:
        """Return a body, of which nearly all are right."""
        if self.draw.random() < _OBJECT_SHARE:
            count = range(self.draw.randrange(1, 5))
            fields = [f'"k{each}"{self.blank()}:{self.blank()}{self.value(1)}' for each in count]
            text = ",\n".join(fields)
            return f"{{{text}}}".encode()
        return f"{self.blank()}{self.value()}{self.blank()}".encode()

    def spoilt(self, body: bytes) -> bytes:
        """Return a body of which some bytes are others, gone or new."""
        data = bytearray(body)
        for _ in range(self.draw.randrange(1, 3)):
            place = self.draw.randrange(len(data) + 1)
            byte = bytes([self.draw.choice(_SPOILING)])
            stop = place + self.draw.choice((0, 0, 1, 1, 3, len(data)))
            data[place:stop] = self.draw.choice((byte, byte, b""))
        return bytes(data)


_UNUSUAL_SHARE: Final = 0.1
_RAGGED_SHARE: Final = 0.003
_OBJECT_SHARE: Final = 0.7
_DEEPEST: Final = 4
