"""Losses equal their published formulas, written in numpy without torch."""

from collections.abc import Iterator

import numpy as np
import pytest

from losswire.server.catalogue.record import Kind, LossRecord
from losswire.server.losses import builtin_registry
from tests.support.caller import Ask, Caller
from tests.support.plain import PLAIN
from tests.support.sampling import (
    draw_ground,
    draw_inputs,
    generator,
    option_variants,
    presences,
)

RECORDS = list(builtin_registry())
_TURNS = 4
_RELATIVE, _ABSOLUTE = 1e-11, 1e-12
"""Some hundred roundings of float64, most of them in exp and log."""


def _asks(record: LossRecord) -> Iterator[Ask]:
    """Return every layout, set of inputs, option value and reduction, in float64."""
    for layout in record.layouts:
        for turn in range(_TURNS):
            rng = generator("numpy", record.name, layout.name, str(turn))
            ground = draw_ground(record, layout, rng)
            for names in presences(ground):
                specs = {name: layout.inputs[name] for name in names}
                dtypes = {n: "float64" if s.is_float else s.dtypes[0] for n, s in specs.items()}
                for options in option_variants(ground, rng):
                    inputs = draw_inputs(ground, dtypes, options, rng)
                    for reduction in record.reductions:
                        yield Ask(
                            loss=record.name, inputs=inputs, options=options, reduction=reduction
                        )


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_loss_equals_its_formula(caller: Caller, record: LossRecord) -> None:
    """Values, sums and means of a loss equal its formula in numpy, in float64."""
    asks = list(_asks(record))
    wrong = []
    for ask, result in zip(asks, caller.results(asks), strict=True):
        with np.errstate(invalid="ignore"):
            plain = PLAIN[record.name](ask.inputs, ask.options)
            expected = np.asarray(plain.reduced(ask.reduction or record.default_reduction))
        assert result.loss.dtype == np.float64
        if result.loss.shape != expected.shape or not np.allclose(
            result.loss, expected, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True
        ):
            wrong.append(f"{ask}: {result.loss}, expected {expected}")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(asks)} differ:", *wrong[:5]])


def test_every_loss_has_a_formula() -> None:
    """Every loss of the catalogue is written in numpy once more, and no other function is."""
    assert sorted(PLAIN) == [record.name for record in RECORDS]


def test_there_are_losses_and_activations() -> None:
    """The catalogue has both kinds of function, so that neither half of these tests is empty."""
    assert {record.kind for record in RECORDS} == {Kind.LOSS, Kind.ACTIVATION}
