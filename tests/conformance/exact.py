"""Numbers with 60 decimal digits that remember where they came from, so that they can be derived.

The expected values of the vectors are formed from these and from the formulas in formulas/: no
torch, no binary floating point, no dependence on the machine. Arrays of them are numpy's object
arrays, whose `np.exp`, `np.log` and `np.sqrt` call the methods of the same name.
"""

import decimal
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Operand: TypeAlias = "Number | Decimal | int"

# Without traps, division by zero and similar operations return infinities and NaN, as in IEEE 754.
_DIGITS = decimal.Context(prec=60, traps=[])


class Number:
    """A value and, for each number it was formed from, its derivative by that number."""

    __slots__ = ("parents", "value")

    def __init__(
        self, value: Decimal | int, parents: tuple[tuple["Number", Decimal], ...] = ()
    ) -> None:
        self.value = Decimal(value)
        self.parents = parents

    def __add__(self, other: Operand) -> "Number":
        right = lift(other)
        one = Decimal(1)
        return Number(_DIGITS.add(self.value, right.value), ((self, one), (right, one)))

    __radd__ = __add__

    def __neg__(self) -> "Number":
        return Number(_DIGITS.minus(self.value), ((self, Decimal(-1)),))

    def __sub__(self, other: Operand) -> "Number":
        return self + -lift(other)

    def __rsub__(self, other: Operand) -> "Number":
        return lift(other) + -self

    def __mul__(self, other: Operand) -> "Number":
        right = lift(other)
        product = _DIGITS.multiply(self.value, right.value)
        return Number(product, ((self, right.value), (right, self.value)))

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> "Number":
        right = lift(other)
        quotient = _DIGITS.divide(self.value, right.value)
        by_self = _DIGITS.divide(Decimal(1), right.value)
        by_right = _DIGITS.minus(_DIGITS.divide(quotient, right.value))
        return Number(quotient, ((self, by_self), (right, by_right)))

    def __rtruediv__(self, other: Operand) -> "Number":
        return lift(other) / self

    def __abs__(self) -> "Number":
        """Return the magnitude; its derivative at 0 is 0, as torch has it."""
        sign = _DIGITS.compare(self.value, Decimal(0))
        return Number(_DIGITS.abs(self.value), ((self, sign),))

    def __lt__(self, other: Operand) -> bool:
        return self.value < lift(other).value

    def __le__(self, other: Operand) -> bool:
        return self.value <= lift(other).value

    def __gt__(self, other: Operand) -> bool:
        return self.value > lift(other).value

    def __ge__(self, other: Operand) -> bool:
        return self.value >= lift(other).value

    def exp(self) -> "Number":
        """Raise e to this power."""
        result = _DIGITS.exp(self.value)
        return Number(result, ((self, result),))

    def log(self) -> "Number":
        """Return the natural logarithm."""
        inverse = _DIGITS.divide(Decimal(1), self.value)
        return Number(_DIGITS.ln(self.value), ((self, inverse),))

    def sqrt(self) -> "Number":
        """Return the square root."""
        root = _DIGITS.sqrt(self.value)
        return Number(root, ((self, _DIGITS.divide(Decimal("0.5"), root)),))


def lift(value: Operand) -> Number:
    """Make a plain number a `Number` that depends on nothing."""
    return value if isinstance(value, Number) else Number(value)


def numbers(array: npt.ArrayLike) -> Array:
    """Make the elements of a floating array `Number`s, exactly."""
    given = np.asarray(array)
    # Every floating type of the wire fits into a double.
    return objects((Number(Decimal(float(each))) for each in given.ravel().tolist()), given.shape)


def objects(elements: Iterable[Any], shape: tuple[int, ...]) -> Array:
    """Make an array of objects; numpy's own constructors make scalars instead of 0-d arrays."""
    array = np.empty(shape, object)
    for place, element in zip(np.ndindex(shape), elements, strict=True):
        array[place] = element
    return array


def total(array: Array) -> Number:
    """Add up all elements."""
    result = Number(0)
    # numpy makes a scalar of a 0-d array wherever it can.
    for element in np.asarray(array, object).ravel():
        result += element
    return result


def derivatives(of: Number, by: Array) -> Array:
    """Differentiate a number by every element of an array; return decimals."""
    return _backward(of, by, Decimal)


def derivative_terms(of: Number, by: Array) -> Array:
    """Add up the magnitudes of the terms of every derivative.

    Terms may cancel; the rounding errors of a sum in a narrow type remain, and this
    is what they grow with.
    """
    return _backward(of, by, abs)


def _backward(of: Number, by: Array, take: Callable[[Decimal], Decimal]) -> Array:
    found: dict[int, Decimal] = {id(of): Decimal(1)}
    for number in _from_last(of):
        outer = found.get(id(number), Decimal(0))
        for parent, inner in number.parents:
            term = take(_DIGITS.multiply(outer, inner))
            found[id(parent)] = _DIGITS.add(found.get(id(parent), Decimal(0)), term)
    return objects((found.get(id(each), Decimal(0)) for each in by.ravel()), by.shape)


def _from_last(last: Number) -> list[Number]:
    """List a number and all it was formed from, so that each comes before its parents."""
    order: list[Number] = []
    seen: set[int] = set()
    stack = [(last, False)]
    while stack:
        number, done = stack.pop()
        if done:
            order.append(number)
        elif id(number) not in seen:
            seen.add(id(number))
            stack.append((number, True))
            stack.extend((parent, False) for parent, _ in number.parents)
    return order[::-1]


def rounded(values: Array, dtype: str, *, exactly: bool) -> Array:
    """Round numbers or decimals to a floating type; ValueError if `exactly` and one changes."""
    wanted = [each.value if isinstance(each, Number) else each for each in values.ravel()]
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    result = np.array([float(each) for each in wanted], np.float64).astype(kind)
    for exact, near in zip(wanted, result.tolist(), strict=True):
        if exactly and not exact.is_nan() and Decimal(float(near)) != exact:
            message = f"{exact} is not a {dtype}: {near}"
            raise ValueError(message)
    return result.reshape(values.shape)
