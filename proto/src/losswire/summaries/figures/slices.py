"""Tables of slices, which are wrapped as they are looked at."""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from losswire.summaries import statistics
from losswire.summaries.figures.statistics import Statistics
from losswire.v1 import summary_pb2

_T = TypeVar("_T")

CROSS = "×"
"""What joins the names of columns, and labels, of the cross of several columns."""

Wrap = Callable[[summary_pb2.GroupSummary], _T]


@dataclass(frozen=True, slots=True)
class Lift:
    """How far the mean of a slice is above that of all rows.

    Example:
        >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0], "country": ["DE", "FR"]}
        >>> table = client.summarize("mse_loss", [batch], slices=["country"]).slices["country"]
        >>> [(each.label, each.lift) for each in table.by_lift()]
        [('FR', 4.0), ('DE', -4.0)]
    """

    label: str
    """The slice."""
    statistics: Statistics
    """Its losses."""
    lift: float
    """Its mean minus the mean of all rows."""
    interval: tuple[float, float]
    """The 95 % interval of the lift."""
    p_value: float
    """How probable so large a lift is where there is none, taken alone."""
    p_adjusted: float
    """The same, corrected for the number of slices (Holm 1979)."""
    small: bool
    """Whether fewer than 30 rows or clusters make interval and p value too small."""


def texts_of(keys: Iterable[tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return keys by their text: the parts with × between them.

    Of keys with the same text, whose parts have a × themselves, the first one has it, and that of
    each other one is the key as Python writes it.
    """
    found: dict[str, tuple[str, ...]] = {}
    for key in keys:
        text = CROSS.join(key)
        found[repr(key) if text in found else text] = key
    return found


class Table(Mapping[str, _T], Generic[_T]):
    """The slices of one table, by label."""

    def __init__(self, message: summary_pb2.SliceTable, wrap: Wrap[_T]) -> None:
        """Wrap the slices of a message when they are asked for."""
        self._message = message
        self._wrap = wrap
        self._groups = {tuple(each.labels): each for each in message.slices}
        self._keys = texts_of(self._groups)
        self._wrapped: dict[tuple[str, ...], _T] = {}

    @property
    def name(self) -> str:
        """The column; of a cross, the columns with × between them."""
        return CROSS.join(self._message.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns whose values make a slice."""
        return tuple(self._message.columns)

    @property
    def other(self) -> _T | None:
        """The rows of all slices without a name of their own; None where there are none."""
        return self._wrap(self._message.other) if self._message.HasField("other") else None

    def __getitem__(self, label: object) -> _T:
        key = self._key(label)
        if key not in self._wrapped:
            self._wrapped[key] = self._wrap(self._groups[key])
        return self._wrapped[key]

    def _key(self, label: object) -> tuple[str, ...]:
        key = tuple(map(str, label)) if isinstance(label, tuple) else (str(label),)
        if key in self._groups:
            return key
        text = CROSS.join(key)
        if text not in self._keys:
            raise KeyError(_missing(f"no slice {text!r} of {self.name}", text, list(self)))
        return self._keys[text]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, label: object) -> bool:
        try:
            self._key(label)
        except KeyError:
            return False
        return True

    def __repr__(self) -> str:
        more = ", and others" if self._message.HasField("other") else ""
        shown = ", ".join(list(self)[:_SHOWN]) + (", ..." if len(self) > _SHOWN else "")
        return f"<{type(self).__name__} {self.name}: {len(self)} slices ({shown}){more}>"


class SliceTable(Table[Statistics]):
    """The slices of one table: a mapping of each label to the slice's `Statistics`.

    Labels are texts; a number is taken for its text. Those of a cross have × between the values,
    and may be given as a tuple. In ascending order.

    Example:
        >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0], "year": [2024, 2025]}
        >>> table = client.summarize("mse_loss", [batch], slices=["year"]).slices["year"]
        >>> list(table), table[2025].mean
        (['2024', '2025'], 9.0)
    """

    drawing: ClassVar[Callable[["SliceTable"], str] | None] = None
    """Returns a table as HTML for notebooks; set by the SDK, which can draw."""

    def __init__(
        self,
        message: summary_pb2.SliceTable,
        total: summary_pb2.GroupSummary,
        loss: str,
        candidate: int = 0,
    ) -> None:
        """Wrap the slices of a message, which are parts of `total`."""
        super().__init__(message, lambda group: Statistics(group, loss, candidate))
        self._loss = loss
        self._total = total
        self._candidate = candidate

    @property
    def loss(self) -> str:
        """The loss's name."""
        return self._loss

    @property
    def whole(self) -> Statistics:
        """All rows, of which the slices are parts."""
        return Statistics(self._total, self._loss, self._candidate)

    def by_lift(self) -> list[Lift]:
        """Return how much each slice differs from all rows, the largest lift first.

        NaN comes last. `p_adjusted` is corrected for the number of slices in this table.

        Example:
            >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0], "country": ["DE", "FR"]}
            >>> table = client.summarize("mse_loss", [batch], slices=["country"]).slices["country"]
            >>> table.by_lift()[0].label
            'FR'
        """
        estimates = [
            statistics.lift(each, self._total, self._candidate) for each in self._groups.values()
        ]
        p_values = [each.p_value for each in estimates]
        found = [
            Lift(
                label=label,
                statistics=self[label],
                lift=each.mean,
                interval=each.interval(),
                p_value=each.p_value,
                p_adjusted=adjusted,
                small=each.small,
            )
            for label, each, adjusted in zip(
                self, estimates, statistics.holm(p_values), strict=True
            )
        ]
        return sorted(found, key=lambda each: (math.isnan(each.lift), -each.lift, each.label))

    def _repr_html_(self) -> str | None:
        draw = type(self).drawing
        return None if draw is None else draw(self)


_SHOWN = 5
_V = TypeVar("_V")


class Tables(Mapping[str, _V], Generic[_V]):
    """The tables of slices by column; a cross by its columns, as a tuple or with × between them."""

    def __init__(
        self, messages: Sequence[summary_pb2.SliceTable], wrap: Callable[[Any], _V]
    ) -> None:
        """Wrap the tables of a message when they are asked for."""
        by_columns = {tuple(each.columns): each for each in messages}
        keys = texts_of(by_columns)
        self._messages = {text: by_columns[key] for text, key in keys.items()}
        self._names = {key: text for text, key in keys.items()}
        self._wrap = wrap
        self._wrapped: dict[str, _V] = {}

    def __getitem__(self, columns: object) -> _V:
        name = str(columns)
        if isinstance(columns, tuple):
            key = tuple(map(str, columns))
            name = self._names.get(key, CROSS.join(key))
        if name not in self._messages:
            raise KeyError(_missing(f"no slices by {name!r}", name, list(self)))
        if name not in self._wrapped:
            self._wrapped[name] = self._wrap(self._messages[name])
        return self._wrapped[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        return f"<slices by {', '.join(self) or 'nothing'}>"


def _missing(text: str, name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3) or names[:_SHOWN]
    return f"{text}; nearest: {', '.join(near)}" if near else text
