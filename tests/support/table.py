"""The table: loss x layout x reduction x option value x data type x gradient input."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from losswire.server.catalogue.layouts import FLOATS
from losswire.server.catalogue.record import Kind, LossRecord, Reduction
from losswire.wire import OptionScalar
from tests.conftest import THOROUGH
from tests.support.caller import Array, Ask, Caller
from tests.support.exact import MEANS, Cell, differences
from tests.support.extras import WHILE_WEIGHTED
from tests.support.sampling import (
    Ground,
    compute_dtypes,
    default_compute_dtype,
    draw_grad_output,
    draw_ground,
    draw_inputs,
    dtype_assignments,
    generator,
    gradient_choices,
    option_variants,
    presences,
    required_options,
)

Mark = tuple[str, str, str, str]
"""One thing that a cell covers, such as ("cross_entropy", "dtype", "batched.target", "uint8")."""

_GROUPS = ((3, 4), (), (37,), (2, 1, 3))
"""The lengths of every group of axes, turn by turn: among them no axis at all, and one that is
longer than a vector of the CPU and not a multiple of it."""
_LONGEST = (5, 20, 4, 3)
"""The longest single axis, turn by turn."""
_EVERY = 3
_WEIGHTED_DTYPES = ("float32", "float64", "bfloat16")


def plan(record: LossRecord) -> Iterator[Cell]:
    """Return every cell of a loss; always the same ones."""
    for layout in record.layouts:
        for turn, (groups, longest) in enumerate(zip(_GROUPS, _LONGEST, strict=True)):
            rng = generator(record.name, layout.name, str(turn))
            ground = draw_ground(record, layout, rng, groups=groups, longest=longest)
            given = presences(ground)
            for names in given if turn == 0 else dict.fromkeys((given[0], given[-1])):
                variants = option_variants(ground, rng)
                if names not in (given[0], given[-1]):
                    variants = variants[:1]
                yield from _plain_cells(ground, names, variants, rng, every_dtype=turn == 0)
                if record.kind is Kind.LOSS and turn in (0, 2):
                    yield from _weighted_cells(ground, names, rng)
                if turn == 0:
                    yield from _converted_gradients(ground, names, rng)


def _plain_cells(
    ground: Ground,
    names: Sequence[str],
    variants: Sequence[Mapping[str, OptionScalar]],
    rng: np.random.Generator,
    *,
    every_dtype: bool,
) -> Iterator[Cell]:
    """Return the product of data types, options, reductions and gradient inputs."""
    assignments = list(dtype_assignments(ground, names))
    if not every_dtype:
        # One is enough for another shape: the first with float32.
        assignments = [each for each in assignments if "float32" in each.values()][:1]
    for dtypes, options in itertools.product(assignments, variants):
        for compute_dtype in compute_dtypes(ground, dtypes):
            inputs = draw_inputs(ground, dtypes, options, rng)
            wanted = gradient_choices(ground, dtypes)
            if not every_dtype:
                wanted = list(dict.fromkeys((wanted[0], wanted[-1])))
            for reduction, gradients in itertools.product(ground.record.reductions, wanted):
                yield _cell(
                    ground,
                    inputs,
                    options,
                    reduction,
                    gradients,
                    rng=rng,
                    compute_dtype=compute_dtype,
                )


def _weighted_cells(
    ground: Ground, names: Sequence[str], rng: np.random.Generator
) -> Iterator[Cell]:
    """Return cells with sample weights of both shapes, and with a normalizer."""
    options = {**required_options(ground), **WHILE_WEIGHTED.get(ground.record.name, {})}
    shape = ground.values_shape
    for dtypes in dtype_assignments(ground, names):
        if not set(_WEIGHTED_DTYPES) & set(dtypes.values()):
            continue
        inputs = draw_inputs(ground, dtypes, options, rng)
        gradients = gradient_choices(ground, dtypes)[-1]
        for reduction in ground.record.reductions:
            for weight_shape in dict.fromkeys([shape, shape[:1]]):
                weight = _draw_weight(weight_shape, rng)
                yield _cell(ground, inputs, options, reduction, gradients, rng=rng, weight=weight)
            if reduction in MEANS:
                norm = float(rng.uniform(0.5, 20.0))
                yield _cell(ground, inputs, options, reduction, gradients, rng=rng, normalizer=norm)


def _converted_gradients(
    ground: Ground, names: Sequence[str], rng: np.random.Generator
) -> Iterator[Cell]:
    """Return cells whose gradients are asked for in another type than the inputs'."""
    options = required_options(ground)
    for dtypes in itertools.islice(dtype_assignments(ground, names), len(FLOATS)):
        gradients = gradient_choices(ground, dtypes)[-1]
        if not gradients:
            continue
        inputs = draw_inputs(ground, dtypes, options, rng)
        for wanted in FLOATS:
            reduction = ground.record.default_reduction
            yield _cell(
                ground, inputs, options, reduction, gradients, rng=rng, gradient_dtype=wanted
            )


def _draw_weight(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Draw sample weights of which some are 0, in one of the floating types."""
    drawn = rng.uniform(0.25, 2.0, shape) * (rng.random(shape) < 0.7)
    return np.asarray(drawn, rng.choice(["float32", "float64"]))


def _cell(
    ground: Ground,
    inputs: Mapping[str, Array],
    options: Mapping[str, OptionScalar],
    reduction: Reduction,
    gradients: tuple[str, ...],
    *,
    rng: np.random.Generator,
    compute_dtype: str | None = None,
    weight: Array | None = None,
    normalizer: float | None = None,
    gradient_dtype: str | None = None,
) -> Cell:
    real = {inputs[name].dtype.name for name in ground.floating(list(inputs))}
    dtype = compute_dtype or default_compute_dtype(real)
    grad_output = draw_grad_output(ground, reduction, dtype, rng) if gradients else None
    ask = Ask(
        loss=ground.record.name,
        inputs=inputs,
        options=options,
        reduction=reduction,
        gradients_for=gradients,
        grad_output=grad_output,
        sample_weight=weight,
        normalizer=normalizer,
        compute_dtype=compute_dtype,
        gradient_dtype=gradient_dtype,
    )
    return Cell(ground=ground, ask=ask)


@dataclass
class Table:
    """The cells that were executed, and their errors."""

    caller: Caller
    cells: dict[str, int] = field(default_factory=dict)
    """The number of executed cells of each loss."""
    marks: set[Mark] = field(default_factory=set)
    """The marks that they covered."""
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def execute(self, record: LossRecord) -> Sequence[str]:
        """Execute every cell of a loss, once; returns the errors."""
        if record.name not in self.cells:
            cells = _chosen(plan(record))
            results = self.caller.results([cell.ask for cell in cells])
            self.wrong[record.name] = [
                f"{cell.ask}: {difference}"
                for cell, result in zip(cells, results, strict=True)
                for difference in differences(cell, result)
            ]
            self.cells[record.name] = len(cells)
            for cell in cells:
                self.marks.update(marks_of(cell))
        return self.wrong[record.name]


def _chosen(cells: Iterable[Cell]) -> list[Cell]:
    """Return all cells with LOSSWIRE_THOROUGH=1; else every third, and those with a new mark."""
    if THOROUGH:
        return list(cells)
    chosen, covered = [], set[Mark]()
    for number, cell in enumerate(cells):
        marks = set(marks_of(cell))
        if number % _EVERY == 0 or not marks <= covered:
            chosen.append(cell)
            covered |= marks
    return chosen


def marks_of(cell: Cell) -> Iterator[Mark]:
    """Return the marks that a cell covers."""
    ask, record, loss = cell.ask, cell.ground.record, cell.ask.loss
    assert ask.reduction is not None
    yield loss, "reduction", ask.reduction.value, ""
    yield loss, "layout", cell.ground.layout.name, ""
    for name in record.inputs:
        yield loss, "input", name, "given" if name in ask.inputs else "absent"
    for name in record.options:
        yield loss, "option", name, "given" if name in ask.options else "absent"
    for name, value in ask.options.items():
        yield loss, "option", name, repr(value)
    for name, array in ask.inputs.items():
        yield loss, "dtype", f"{cell.ground.layout.name}.{name}", array.dtype.name
    for name in ask.gradients_for:
        yield loss, "gradient", name, cell.ground.layout.name
