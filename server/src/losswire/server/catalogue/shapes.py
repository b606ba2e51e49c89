"""The notation of shapes, such as `N C *D`, and the matching of lengths to it.

A shape is a list of axes separated by spaces. `N` is an axis of the same length in all inputs;
`*D` is any number of axes, also the same in all inputs; `#*S` is any shape that broadcasts to
`*S`; a number is that length; the empty text is a scalar. The notation is jaxtyping's, with one
addition: behind `#1`, as in `#1 *S K`, one axis may have length 1 instead of its own, and
broadcasts.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

Shape = tuple[int, ...]

_ONE: Final = "#1"
"""The mark in front of a shape of which one axis may have length 1."""


@dataclass(slots=True)
class Bindings:
    """The lengths of the axes of one evaluation, as its arrays bind them."""

    axes: dict[str, int] = field(default_factory=dict)
    """The length of each single axis: `{"N": 32, "C": 10}`."""
    groups: dict[str, Shape] = field(default_factory=dict)
    """The lengths of each group of axes: `{"D": (7, 7)}`."""


@dataclass(frozen=True)
class Axes:
    """A shape in named axes, such as `Axes("N C *D")`."""

    text: str

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The axes, outermost first, without the mark `#1`."""
        tokens = tuple(self.text.split())
        return tokens[1:] if tokens[:1] == (_ONE,) else tokens

    @property
    def _allows_one(self) -> bool:
        """Whether this is a `#1 ...`: one of its axes may have length 1."""
        return self.text.startswith(_ONE)

    @cached_property
    def _split(self) -> tuple[tuple[str, ...], str | None, tuple[str, ...]]:
        """The single axes before the group, the group's name, the single axes after it."""
        for position, token in enumerate(self.tokens):
            if token.startswith("*"):
                return self.tokens[:position], token[1:], self.tokens[position + 1 :]
        return self.tokens, None, ()

    @property
    def broadcasts(self) -> bool:
        """Whether other shapes fit that broadcast to this one: it is a `#*S` or a `#1 ...`."""
        return self.text.startswith("#")

    def match(self, shape: Shape, bindings: Bindings) -> bool:
        """Return whether a shape fits, and if so bind the axes that were free.

        A shape that may broadcast binds none, unless no other array has bound them before.
        """
        if self._allows_one and self._is_bound(bindings):
            return _differs_by_a_one(shape, self.resolve(bindings))
        if self.broadcasts and not self._allows_one:
            return _broadcasts_to(shape, bindings.groups.get(self.text[2:], ()))
        before, group, behind = self._split
        middle = len(shape) - len(before) - len(behind)
        if middle < 0 or (group is None and middle):
            return False
        end = len(before) + middle
        singles = (*zip(before, shape, strict=False), *zip(behind, shape[end:], strict=True))
        found = dict[str, int]()
        for name, length in singles:
            expected = int(name) if name.isdigit() else bindings.axes.get(name, found.get(name))
            if expected is not None and expected != length:
                return False
            found[name] = length
        if group is not None:
            lengths = shape[len(before) : end]
            if bindings.groups.setdefault(group, lengths) != lengths:
                return False
        bindings.axes.update(found)
        return True

    def _is_bound(self, bindings: Bindings) -> bool:
        """Return whether the length of every axis is known."""
        return all(
            token[1:] in bindings.groups if token.startswith("*") else token in bindings.axes
            for token in self.tokens
            if not token.isdigit()
        )

    def resolve(self, bindings: Bindings) -> Shape:
        """Return the lengths; every axis must be bound. Shapes that broadcast resolve to theirs."""
        lengths: list[int] = []
        for token in self.tokens:
            if token.startswith(("*", "#")):
                lengths.extend(bindings.groups[token.lstrip("#*")])
            else:
                lengths.append(int(token) if token.isdigit() else bindings.axes[token])
        return tuple(lengths)

    def describe(self, bindings: Bindings) -> str:
        """Return the expected shape in words, with the lengths that are known: `[32, C]`."""
        parts: list[str] = []
        for token in self.tokens:
            if token.startswith("#"):
                known = list(bindings.groups.get(token[2:], ()))
                return f"a shape that broadcasts to {known}"
            if token.startswith("*"):
                lengths = bindings.groups.get(token[1:])
                parts.extend([f"{token[1:]}..."] if lengths is None else map(str, lengths))
            else:
                parts.append(str(bindings.axes.get(token, token)))
        text = f"[{', '.join(parts)}]"
        if self._allows_one and parts:
            return f"{text}, of which one axis may be 1 and none may be left out"
        return text

    def has_rows(self, values: "Axes", shape: Shape, bindings: Bindings) -> bool:
        """Return whether an array of this shape is cut along its first axis, as `values` are."""
        if self.broadcasts and not self._allows_one:
            wanted = values.resolve(bindings)
            return bool(wanted) and len(shape) == len(wanted) and shape[0] == wanted[0]
        first = values.first(bindings)
        if first is None or self.first(bindings) != first:
            return False
        return not self._allows_one or shape[0] == self.resolve(bindings)[0]

    def first(self, bindings: Bindings) -> str | None:
        """Return the token of the outermost axis; None for a scalar."""
        return next((each for each in self.tokens if Axes(each).resolve(bindings)), None)

    def broadcast_from(self, values: "Axes", shape: Shape, bindings: Bindings) -> "Broadcast":
        """Return how an array over `values` broadcasts to an array of this shape.

        Over values `N *D` of shape (8, 5), an input `N C *D` of shape (8, 3, 5) has the broadcast
        shape (8, 1, 5) and shares nothing; an input `N F` of shape (8, 2) has (8, 1) and is shared
        along axis 1; a class weight `C` has (1,) and is shared along both; a `#1 N *D` of shape
        (1, 5) has that shape and is shared along axis 0. Axes that both have are in the same order.
        """
        if self.broadcasts and not self._allows_one:
            return _broadcast_shape(values.resolve(bindings), shape)
        own: dict[str, Shape] = {}
        lengths: list[int] = []
        start = 0
        for token in self.tokens:
            stop = start + len(Axes(token).resolve(bindings))
            own[token] = shape[start:stop]
            lengths.extend(own[token] if token in values.tokens else (1,) * (stop - start))
            start = stop
        shared: list[int] = []
        rank = 0
        for token in values.tokens:
            wanted = Axes(token).resolve(bindings)
            differs = [token not in own or own[token][i] != each for i, each in enumerate(wanted)]
            shared.extend(rank + i for i, each in enumerate(differs) if each)
            rank += len(wanted)
        return Broadcast(tuple(shared), tuple(lengths))


@dataclass(frozen=True, slots=True)
class Broadcast:
    """How an array over the values broadcasts to an input."""

    shared: tuple[int, ...]
    """The axes of the values along which all values share an element of the input."""
    shape: Shape
    """The shape in which an array over the other axes broadcasts to the input's shape."""


def _broadcast_shape(values: Shape, shape: Shape) -> Broadcast:
    """Return the broadcast of an input that itself broadcasts to the values."""
    padded = (1,) * (len(values) - len(shape)) + shape
    missing = len(values) - len(shape)
    shared = (
        axis
        for axis, (own, wanted) in enumerate(zip(padded, values, strict=True))
        if axis < missing or own != wanted
    )
    return Broadcast(tuple(shared), shape)


def _broadcasts_to(shape: Shape, target: Shape) -> bool:
    """Return whether torch can expand `shape` to `target`."""
    if len(shape) > len(target):
        return False
    inner = target[len(target) - len(shape) :]
    return all(length in (1, wanted) for length, wanted in zip(shape, inner, strict=True))


def _differs_by_a_one(shape: Shape, target: Shape) -> bool:
    """Return whether a shape is `target`, or that with one axis of 1."""
    if len(shape) != len(target):
        return False
    different = [length for length, wanted in zip(shape, target, strict=True) if length != wanted]
    return different in ([], [1])
