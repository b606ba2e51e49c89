"""Inputs and options are torch's own: the same names, the same order, the same defaults."""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from losswire.server.catalogue.record import LossRecord
from losswire.server.losses import builtin_registry

RECORDS = list(builtin_registry())

NOT_OFFERED = {
    "size_average": "deprecated by torch in favour of reduction",
    "reduce": "deprecated by torch in favour of reduction",
    "reduction": "a field of every evaluation",
    "dtype": "a field of every evaluation: the compute type",
    "_stacklevel": "where torch's warnings point to",
}
"""Parameters of torch that no record has, and why."""

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("log_softmax", "dim"): "required here, because torch deprecates its own default of None",
    ("softmax", "dim"): "required here, because torch deprecates its own default of None",
    ("softmin", "dim"): "required here, because torch deprecates its own default of None",
    ("linear_cross_entropy", "options"): "how torch cuts its work into chunks; not its result",
    (
        "triplet_margin_with_distance_loss",
        "distance_function",
    ): "a name, where torch has a function",
}
"""Single parameters that differ, and why."""

REQUIRED = inspect.Parameter.empty

BUILTINS: dict[str, dict[str, Any]] = {"logsigmoid": {"input": REQUIRED}}
"""Parameters and defaults of those functions of torch that have no signature to inspect."""


def _function(source: str) -> Callable[..., Any]:
    """Find a function by its full name."""
    module, _, name = source.rpartition(".")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def _parameters_of_torch(record: LossRecord) -> dict[str, Any]:
    """Return the parameters of torch's function and their defaults, in torch's order."""
    found = BUILTINS.get(record.name)
    if found is None:
        signature = inspect.signature(_function(record.source))
        found = {name: each.default for name, each in signature.parameters.items()}
    return {name: default for name, default in found.items() if name not in NOT_OFFERED}


def _parameters_of(record: LossRecord) -> dict[str, Any]:
    """Return the inputs and options of a record and their defaults, in its order."""
    inputs = {name: REQUIRED if name in record.required_inputs else None for name in record.inputs}
    options = {
        name: REQUIRED if field.required else field.default
        for name, field in record.option_fields.items()
    }
    return {**inputs, **options}


def _without_exceptions(record: LossRecord, parameters: dict[str, Any]) -> dict[str, Any]:
    return {n: value for n, value in parameters.items() if (record.name, n) not in EXCEPTIONS}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_parameters_are_those_of_torch(record: LossRecord) -> None:
    """A loss has every parameter of torch's function, with torch's default, and no other."""
    expected = _without_exceptions(record, _parameters_of_torch(record))
    assert _without_exceptions(record, _parameters_of(record)) == expected


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_order_is_that_of_torch(record: LossRecord) -> None:
    """The inputs, and the options, are in torch's order."""
    order = list(_parameters_of_torch(record))
    for described in (record.inputs, record.options):
        names = [name for name in described if (record.name, name) not in EXCEPTIONS]
        assert names == [name for name in order if name in names]


def test_exceptions_are_about_parameters_that_exist() -> None:
    """No exception outlives the loss or the parameter it was made for."""
    known = {
        (record.name, name)
        for record in RECORDS
        for name in {**_parameters_of(record), **_parameters_of_torch(record)}
    }
    assert set(EXCEPTIONS) - known == set()
    assert set(BUILTINS) - {record.name for record in RECORDS} == set()


def test_a_missing_option_is_noticed() -> None:
    """A record without one of torch's options has other parameters than torch."""
    [record] = [each for each in RECORDS if each.name == "cross_entropy"]
    complete = _parameters_of_torch(record)
    assert complete["label_smoothing"] == 0.0
    assert {n: v for n, v in _parameters_of(record).items() if n != "ignore_index"} != complete
