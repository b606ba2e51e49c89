"""Draws valid evaluations from a loss's record, so that new losses are tested unasked."""

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from losswire.server.catalogue.layouts import FLOATS, Layout, Spec
from losswire.server.catalogue.options import OptionContext, Range
from losswire.server.catalogue.record import LossRecord, Reduction
from losswire.server.catalogue.shapes import Axes, Bindings, Shape
from losswire.server.catalogue.value_rules import ClassIndices, Context
from losswire.wire import DATA_TYPES, OptionScalar
from tests.support.caller import Array
from tests.support.extras import POSITIVE

NUMPY = {each.name: each.numpy for each in DATA_TYPES.values()}
"""The numpy dtype of each data type, by name."""

_LONGEST_OPTION_LIST = 6
_INTEGERS = (0, 1, 2, -1, 255, -100)
_DOUBLES = (0.0, 0.3, 1.0, 2.5, -0.5)
_MIXED = (
    ("float32", "float64"),
    ("float64", "float32"),
    ("bfloat16", "float32"),
    ("float32", "int64"),
)
_IGNORED_SHARE = 0.25


@dataclass(frozen=True)
class Ground:
    """Where an evaluation takes place: a loss, a layout and the lengths of its axes."""

    record: LossRecord
    layout: Layout
    bindings: Bindings

    @property
    def values_shape(self) -> Shape:
        """The shape of the values."""
        return self.layout.values.resolve(self.bindings)

    def floating(self, names: Sequence[str]) -> list[str]:
        """Return the names of the inputs that are computed with."""
        return [name for name in names if self.layout.inputs[name].is_float]

    def differentiable(self, names: Sequence[str]) -> list[str]:
        """Return the names of the inputs that have a gradient in this layout."""
        return [n for n in names if self.layout.name in self.record.differentiable_in(n)]


def generator(*seed: str) -> np.random.Generator:
    """Return a random generator that is always the same for the same words."""
    return np.random.default_rng(zlib.crc32("/".join(seed).encode()))


def draw_ground(
    record: LossRecord,
    layout: Layout,
    rng: np.random.Generator,
    *,
    rows: int | None = None,
    groups: Shape | None = None,
    shortest: int = 1,
    longest: int = 5,
) -> Ground:
    """Draw the lengths of all axes; `rows` fixes the first axis of the values.

    `groups` are the lengths of every group of axes, `shortest` is the least length
    of their axes when they are drawn.
    """
    bindings = Bindings()
    for spec in (*(each.axes for each in layout.inputs.values()), layout.values):
        for token in spec.tokens:
            name = token.lstrip("#*")
            if token.startswith(("*", "#")):
                if name not in bindings.groups:
                    rank = int(rng.integers(0, 4 if name == "S" else 3))
                    lengths = tuple(int(n) for n in rng.integers(shortest, longest, rank))
                    bindings.groups[name] = lengths if groups is None else groups
            elif not name.isdigit() and name not in bindings.axes:
                bindings.axes[name] = int(rng.integers(2, longest + 1))
    if rows is not None:
        _set_rows(layout, bindings, rows)
    return Ground(record, layout, bindings)


def _set_rows(layout: Layout, bindings: Bindings, rows: int) -> None:
    """Fix the length of the first axis of the values, where they have one."""
    first = next(iter(layout.values.tokens), None)
    if first is None:
        return
    if first.startswith("*"):
        lengths = bindings.groups[first[1:]]
        bindings.groups[first[1:]] = (rows, *lengths[1:]) if lengths else ()
    else:
        bindings.axes[first] = max(rows, 1) if first in layout.nonempty else rows


def presences(ground: Ground) -> list[tuple[str, ...]]:
    """Return every set of inputs that may be given together, in the record's order."""
    names = [name for name in ground.record.inputs if name in ground.layout.inputs]
    optional = [name for name in names if name not in ground.record.required_inputs]
    chosen = itertools.chain.from_iterable(
        itertools.combinations(optional, size) for size in range(len(optional) + 1)
    )
    return [
        tuple(n for n in names if n in ground.record.required_inputs or n in some)
        for some in chosen
    ]


def dtype_assignments(ground: Ground, names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Return assignments of dtypes that have every declared dtype of every input at least once.

    All inputs of one floating type; then each index type; then each input that
    may differ from the others in a type that does.
    """
    specs = {name: ground.layout.inputs[name] for name in names}
    real = ground.floating(names)
    for dtype in dict.fromkeys(dtype for name in real for dtype in specs[name].dtypes):
        yield {name: _nearest(spec, dtype) for name, spec in specs.items()}
    base = {name: _nearest(spec, "float32") for name, spec in specs.items()}
    for name, spec in specs.items():
        if not spec.is_float:
            yield from ({**base, name: dtype} for dtype in spec.dtypes[1:])
    for name in real[1:]:
        mixes = ground.record.inputs[name].promotes_in(ground.layout.name)
        for own, other in _MIXED if mixes else ():
            if other in specs[name].dtypes and own in specs[real[0]].dtypes:
                yield {**{n: _nearest(s, own) for n, s in specs.items()}, name: other}


def _nearest(spec: Spec, dtype: str) -> str:
    """Return the dtype if the input accepts it, else its first one."""
    if dtype in spec.dtypes:
        return dtype
    return "float32" if "float32" in spec.dtypes else spec.dtypes[0]


def compute_dtypes(ground: Ground, dtypes: Mapping[str, str]) -> list[str | None]:
    """Return the compute types to ask for: none and, for half precision, the inputs' own."""
    real = {dtypes[name] for name in ground.floating(list(dtypes))}
    if not real & set(FLOATS):
        return [None, *FLOATS] if ground.record.promotes_integers else [*FLOATS]
    own = widest(real)
    if own == "float64":
        return [None]
    return [None, "float64"] if own == "float32" else [None, own, "float32"]


def widest(dtypes: set[str]) -> str:
    """Return the floating type that torch promotes to."""
    kinds = sorted(dtypes & set(FLOATS), key=FLOATS.index)
    return "float32" if kinds == ["float16", "bfloat16"] else kinds[-1]


def default_compute_dtype(real: set[str]) -> str:
    """Return the type that is computed in when none is asked for."""
    return "float64" if "float64" in real else "float32"


def option_values(ground: Ground, name: str) -> list[OptionScalar]:
    """Return a few accepted values of an option: its default, its bounds and some between."""
    field, option = ground.record.option_fields[name], ground.record.options[name]
    default = [] if field.default is None else [field.default]
    candidates: list[OptionScalar] = [*default, *option.choices]
    if field.type is bool:
        candidates += [False, True]
    elif field.type is int:
        candidates += _INTEGERS
    elif field.type is float:
        for rule in option.rules:
            if isinstance(rule, Range):
                bounds = (rule.low, rule.high)
                candidates += [bound for bound in bounds if math.isfinite(bound)]
        candidates += _DOUBLES
    context = OptionContext(ground.layout, ground.bindings)
    accepted = [
        value
        for value in dict.fromkeys(candidates)
        if not any(rule.violation(value, context) for rule in option.rules)
    ]
    return accepted[:_LONGEST_OPTION_LIST]


def required_options(ground: Ground) -> dict[str, OptionScalar]:
    """Return a value of each option that has no default."""
    return {
        name: option_values(ground, name)[0]
        for name, field in ground.record.option_fields.items()
        if field.required
    }


def option_variants(ground: Ground, rng: np.random.Generator) -> list[dict[str, OptionScalar]]:
    """Return the defaults, every option varied by itself, and all options varied together."""
    base = required_options(ground)
    values = {name: option_values(ground, name) for name in ground.record.options}
    variants = [base]
    variants += [{**base, name: value} for name, some in values.items() for value in some]
    if len(values) > 1:
        # An option may have no value at all in a layout, and must then be left out.
        drawn = {n: some[int(rng.integers(len(some)))] for n, some in values.items() if some}
        variants.append(drawn)
    unique: list[dict[str, OptionScalar]] = []
    for each in variants:
        if not any(each == other and repr(each) == repr(other) for other in unique):
            unique.append(each)
    return unique


def draw_inputs(
    ground: Ground,
    dtypes: Mapping[str, str],
    options: Mapping[str, OptionScalar],
    rng: np.random.Generator,
) -> dict[str, Array]:
    """Draw accepted values for the inputs named in `dtypes`."""
    record, bindings = ground.record, ground.bindings
    filled = {n: field.default for n, field in record.option_fields.items()} | dict(options)
    arrays: dict[str, Array] = {}
    for name, dtype in dtypes.items():
        spec = ground.layout.inputs[name]
        shape = _draw_shape(spec.axes, bindings, rng)
        rule = record.inputs[name].rule_for(is_float=spec.is_float)
        drawn = np.asarray(rule.example(rng, shape, Context(bindings, filled, arrays)))
        if isinstance(rule, ClassIndices) and rule.or_option is not None:
            given = filled[rule.or_option]
            marker = rule.option_default if given is None else given
            drawn = _with_ignored(drawn, marker, dtype, rng)
        arrays[name] = convert(np.abs(drawn) + 0.1 if name in POSITIVE else drawn, dtype)
    return arrays


def _draw_shape(axes: Axes, bindings: Bindings, rng: np.random.Generator) -> Shape:
    """Return the shape of an input; one that may broadcast is reduced at random."""
    shape = axes.resolve(bindings)
    if not axes.broadcasts:
        return shape
    if axes.text.startswith("#1"):
        one = int(rng.integers(0, len(shape) + 1))
        return tuple(1 if place == one else length for place, length in enumerate(shape))
    kept = shape[int(rng.integers(0, len(shape) + 1)) :]
    return tuple(length if rng.random() < 0.7 else 1 for length in kept)


def _with_ignored(
    drawn: Array, marker: OptionScalar, dtype: str, rng: np.random.Generator
) -> Array:
    """Write the mark of an ignored target at some positions, if the dtype can hold it."""
    limits = np.iinfo(NUMPY[dtype])
    if not isinstance(marker, int) or not limits.min <= marker <= limits.max:
        return drawn
    return np.where(rng.random(drawn.shape) < _IGNORED_SHARE, marker, drawn)


def convert(drawn: Array, dtype: str) -> Array:
    """Convert drawn numbers to another dtype; small integers if it has no fractions."""
    if drawn.dtype.kind == "f" and dtype not in FLOATS:
        drawn = np.rint(drawn * 2)
        drawn = np.abs(drawn) if dtype == "uint8" else drawn
    return np.asarray(drawn).astype(NUMPY[dtype])


def gradient_choices(ground: Ground, dtypes: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return no gradient, each gradient by itself and all together."""
    fixed = _fixed_by_mixing(ground, dtypes)
    names = [n for n in ground.differentiable(list(dtypes)) if n not in fixed]
    possible = [n for n in names if dtypes[n] in FLOATS]
    together = [tuple(possible)] if len(possible) > 1 else []
    return [(), *((name,) for name in possible), *together]


def _fixed_by_mixing(ground: Ground, dtypes: Mapping[str, str]) -> set[str]:
    """Return the inputs that have no gradient while the dtype of another differs."""
    real = ground.floating(list(dtypes))
    return {
        fixed
        for name in real
        if dtypes[name] != dtypes[real[0]]
        for fixed in ground.record.inputs[name].fixed_for_gradients
    }


def draw_grad_output(
    ground: Ground, reduction: Reduction, dtype: str, rng: np.random.Generator
) -> Array | None:
    """Draw a gradient with respect to the loss; for a reduced loss, sometimes none."""
    if reduction is Reduction.NONE:
        return convert(np.asarray(rng.standard_normal(ground.values_shape)), dtype)
    return None if rng.random() < 0.5 else convert(np.asarray(rng.standard_normal()), dtype)


def doubles(ground: Ground, names: Sequence[str]) -> dict[str, str]:
    """Return float64 for inputs that are computed with, and the first dtype of the others."""
    specs = {name: ground.layout.inputs[name] for name in names}
    return {n: _nearest(s, "float64") if s.is_float else s.dtypes[0] for n, s in specs.items()}
