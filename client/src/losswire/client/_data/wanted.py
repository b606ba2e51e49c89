"""Which columns of the data an evaluation reads, and what each is for."""

import difflib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from losswire.client._messages.catalogue import LayoutInfo, LossInfo

Slices = Sequence[str | tuple[str, ...]]
Nulls = Literal["refuse", "skip"]

_LISTED: Final = 20
"""How many names of columns an error lists."""


@dataclass(frozen=True, kw_only=True)
class ColumnsWanted:
    """The columns to read; a batch in the form of a dict has them by the same names."""

    inputs: Mapping[str, str]
    """The column of each input of the loss that comes with the batches; each must be there."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """The same for inputs that are taken where the data has the column."""
    candidates: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The columns of each candidate's own inputs, by the candidate's name."""
    slices: tuple[str | tuple[str, ...], ...] = ()
    """The columns whose values make slices: a name, or several for their cross."""
    ids: str | None = None
    """The column of the rows' ids."""
    sample_weight: str | None = None
    """The column of the rows' weights."""
    cluster: str | None = None
    """The column of the rows' clusters."""
    nulls: Nulls = "refuse"
    """Whether a null is an error, or its row takes no part: then its weight is 0, so that it is
    counted as ignored and all others keep their numbers. Batches without any other row are left
    out."""
    row_axes: Mapping[str, int | None] = field(default_factory=dict)
    """The axis of the rows in each input where it is not the first; None: it has none."""
    shared_only: frozenset[str] = frozenset()
    """The inputs that no batch may bring, because they have no rows."""
    types: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The types that the loss takes, by input."""

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """The columns that the slices name, each once, in their order."""
        return tuple(dict.fromkeys(name for each in self.slices for name in names_in(each)))

    def uses(self) -> Iterator[tuple[str, str]]:
        """Yield the name of each column that must be there, and what it is for."""
        for name, column in self.inputs.items():
            yield column, f'input "{name}"'
        for candidate, inputs in self.candidates.items():
            for name, column in inputs.items():
                yield column, f'input "{name}" of candidate "{candidate}"'
        for column in self.slice_columns:
            yield column, "slices"
        for use, single in (
            ("ids", self.ids),
            ("sample_weight", self.sample_weight),
            ("cluster", self.cluster),
        ):
            if single is not None:
                yield single, use

    def columns_in(self, there: Collection[str], where: str) -> list[str]:
        """Return the columns to read of those that are there, each once.

        Raises ValueError that names all missing columns, what they are for, and near names.
        """
        missing = [
            f'no column "{column}" ({use}{_nearest(column, there)})'
            for column, use in self.uses()
            if column not in there
        ]
        if missing:
            names = ", ".join(map(str, list(there)[:_LISTED]))
            more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
            raise ValueError(f"{where}: {'; '.join(missing)}. It has: {names or 'none'}{more}")
        optional = [column for column in self.optional.values() if column in there]
        return list(dict.fromkeys([*(column for column, _ in self.uses()), *optional]))


def names_in(slice_: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that one slice names."""
    return (slice_,) if isinstance(slice_, str) else slice_


def columns_wanted(
    loss: LossInfo,
    *,
    shared: Collection[str] = (),
    columns: Mapping[str, str] | None = None,
    candidates: Mapping[str, Mapping[str, str]] | None = None,
    slices: str | Slices = (),
    ids: str | None = None,
    sample_weight: str | None = None,
    cluster: str | None = None,
    nulls: Nulls = "refuse",
) -> ColumnsWanted:
    """Return the columns that an evaluation of a loss reads, from the arguments of the call.

    Inputs that are neither in `shared` nor a candidate's own come with the batches, from the
    column that `columns` names, or that of their own name. Raises ValueError for inputs that
    the loss does not have, that come from two places, or that have no rows; and for a cross that
    names a column twice.
    """
    columns, candidates = columns or {}, candidates or {}
    tables = (slices,) if isinstance(slices, str) else tuple(slices)
    axes = _row_axes(loss)
    _check_inputs(loss, axes, shared, columns, candidates)
    _check_others(tables, nulls)
    own = {name for inputs in candidates.values() for name in inputs}
    names = [each.name for each in loss.inputs if each.name not in {*shared, *own}]
    required = {each.name for each in loss.inputs if each.required}
    rest = [name for name in names if name not in required and name not in columns]
    # A column with another use is not taken for an input that the loss can do without.
    used = {ids, sample_weight, cluster, *(name for each in tables for name in names_in(each))}
    free = [name for name in rest if name not in used]
    return ColumnsWanted(
        inputs={name: columns.get(name, name) for name in names if name not in rest},
        optional={name: name for name in free if axes[name] is not None},
        candidates={name: dict(inputs) for name, inputs in candidates.items()},
        slices=tuple(each if isinstance(each, str) else tuple(each) for each in tables),
        ids=ids,
        sample_weight=sample_weight,
        cluster=cluster,
        nulls=nulls,
        row_axes={name: axis for name, axis in axes.items() if axis != 0},
        shared_only=frozenset(name for name in free if axes[name] is None),
        types={each.name: frozenset(each.dtypes) for each in loss.inputs},
    )


def _check_inputs(
    loss: LossInfo,
    axes: Mapping[str, int | None],
    shared: Collection[str],
    columns: Mapping[str, str],
    candidates: Mapping[str, Mapping[str, str]],
) -> None:
    """Raise ValueError for inputs that the loss does not have, or that are given twice."""
    places = {
        "shared": shared,
        "columns": columns,
        **{f'candidates["{name}"]': inputs for name, inputs in candidates.items()},
    }
    known = [each.name for each in loss.inputs]
    for path, names in places.items():
        for name in names:
            if name not in known:
                raise ValueError(
                    f'{path}: {loss.name} has no input "{name}"{_nearest(name, known)}; it has '
                    f"{', '.join(known)}"
                )
            if path != "shared" and axes[name] is None:
                raise ValueError(f'{path}: the input "{name}" has no rows; give it in shared')
    own = {name for inputs in candidates.values() for name in inputs}
    given = {"shared": shared, "columns": columns, "candidates": own}
    for first, second in itertools.combinations(given, 2):
        for name in known:
            if name in given[first] and name in given[second]:
                raise ValueError(f'input "{name}" is both in {first} and in {second}')


def _check_others(slices: Slices, nulls: str) -> None:
    for each in slices:
        if not names_in(each) or len(set(names_in(each))) != len(names_in(each)):
            raise ValueError(f"slices: {each!r} names no column, or one of them twice")
    if nulls not in {"refuse", "skip"}:
        raise ValueError(f'nulls: {nulls!r} is neither "refuse" nor "skip"')


def _row_axes(loss: LossInfo) -> dict[str, int | None]:
    """Return the axis of the rows in each input, by the first layout that has each input."""
    axes: dict[str, int | None] = {}
    # Layouts without rows, of a single sample, say nothing.
    for layout in loss.layouts:
        rows = next(iter(layout.values.split()), None)
        if rows is not None:
            for name in layout.inputs:
                axes.setdefault(name, _axis_in(layout, name, rows))
    return {each.name: axes.get(each.name) for each in loss.inputs}


def _axis_in(layout: LayoutInfo, name: str, rows: str) -> int | None:
    """Return which axis of an input in a layout is that of the rows."""
    # Behind the first mark one axis may have length 1; the second means "broadcasts to".
    tokens = layout.inputs[name].removeprefix("#1 ").removeprefix("#").split()
    return tokens.index(rows) if rows in tokens else None


def _nearest(name: str, names: Collection[str]) -> str:
    """Return the words that name what is most like a missing name; none if nothing is."""
    found = difflib.get_close_matches(name, list(names), n=2, cutoff=0.6)
    return f"; nearest: {', '.join(found)}" if found else ""
