"""The notation of shapes, such as `N C *D`, and the matching of lengths to it.

A shape is a list of axes separated by spaces. `N` is an axis of the same length in all inputs;
`*D` is any number of axes, also the same in all inputs; `#*S` is any shape that broadcasts to
`*S`; a number is that length; the empty text is a scalar. The notation is jaxtyping's.
"""

from dataclasses import dataclass, field
from functools import cached_property

Shape = tuple[int, ...]


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
        """The axes, outermost first."""
        return tuple(self.text.split())

    @cached_property
    def _split(self) -> tuple[tuple[str, ...], str | None, tuple[str, ...]]:
        """The single axes before the group, the group's name, the single axes after it."""
        for position, token in enumerate(self.tokens):
            if token.startswith("*"):
                return self.tokens[:position], token[1:], self.tokens[position + 1 :]
        return self.tokens, None, ()

    @property
    def broadcasts(self) -> bool:
        """Whether this is a `#*S`: any shape that broadcasts to `*S`."""
        return self.text.startswith("#")

    def match(self, shape: Shape, bindings: Bindings) -> bool:
        """Return whether a shape fits, and if so bind the axes that were free."""
        if self.broadcasts:
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

    def resolve(self, bindings: Bindings) -> Shape:
        """Return the lengths; every axis must be bound. A `#*S` resolves to `*S`."""
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
        return f"[{', '.join(parts)}]"

    def has_rows(self, values: "Axes", shape: Shape, bindings: Bindings) -> bool:
        """Return whether an array of this shape is cut along its first axis, as `values` are."""
        if self.broadcasts:
            wanted = values.resolve(bindings)
            return bool(wanted) and len(shape) == len(wanted) and shape[0] == wanted[0]
        first = values.first(bindings)
        return first is not None and self.first(bindings) == first

    def first(self, bindings: Bindings) -> str | None:
        """Return the token of the outermost axis; None for a scalar."""
        return next((each for each in self.tokens if Axes(each).resolve(bindings)), None)

    def broadcast_from(self, values: "Axes", shape: Shape, bindings: Bindings) -> "Broadcast":
        """Return how an array over `values` broadcasts to an array of this shape.

        Over values `N *D` of shape (8, 5), an input `N C *D` of shape (8, 3, 5) has the broadcast
        shape (8, 1, 5) and shares nothing; an input `N F` of shape (8, 2) has (8, 1) and is shared
        along axis 1; a class weight `C` has (1,) and is shared along both. Axes that both have are
        in the same order.
        """
        if self.broadcasts:
            return _broadcast_shape(values.resolve(bindings), shape)
        shared: list[int] = []
        rank = 0
        for token in values.tokens:
            behind = rank + len(Axes(token).resolve(bindings))
            if token not in self.tokens:
                shared.extend(range(rank, behind))
            rank = behind
        lengths: list[int] = []
        for token in self.tokens:
            own = Axes(token).resolve(bindings)
            lengths.extend(own if token in values.tokens else (1 for _ in own))
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
