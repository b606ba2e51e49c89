"""Every declared combination gives torch's own values and gradients, bit for bit."""

from collections.abc import Callable, Iterator

import pytest

from losswire.server.catalogue.record import LossRecord
from losswire.server.losses import builtin_registry
from losswire.v1 import evaluation_pb2, loss_info_pb2
from losswire.wire import DATA_TYPES, decode_option
from tests.support.caller import Caller
from tests.support.reference import REFERENCES
from tests.support.table import Mark, Table

RECORDS = {record.name: record for record in builtin_registry()}

EXPLAINED: dict[Mark, str] = {}
"""Declared combinations that no cell covers, and why."""


@pytest.fixture(scope="module")
def table(
    caller: Caller, record_testsuite_property: Callable[[str, object], None]
) -> Iterator[Table]:
    """The table, filled as tests ask for it; the test report gets the number of its cells."""
    filled = Table(caller)
    yield filled
    for name, cells in sorted(filled.cells.items()):
        record_testsuite_property(f"cells of {name}", cells)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())
def test_loss_equals_torch(
    table: Table, record: LossRecord, cells_executed: dict[str, int]
) -> None:
    """Every cell of a loss equals torch: values and gradients to the bit, sums to 4 ulp."""
    wrong = table.execute(record)
    cells_executed[record.name] = table.cells[record.name]
    assert not wrong, "\n".join([f"{len(wrong)} differences:", *wrong[:10]])


def test_every_loss_has_a_reference() -> None:
    """Every loss of the catalogue has torch's own function to be compared with, and no other."""
    assert sorted(REFERENCES) == sorted(RECORDS)


@pytest.mark.timeout(300)
def test_no_declared_combination_is_left_out(caller: Caller, table: Table) -> None:
    """All that ListLosses declares is covered by a cell that was executed, or explained."""
    infos = caller.losses()
    assert [info.name for info in infos] == list(RECORDS)
    for record in RECORDS.values():
        table.execute(record)
    declared = {mark for info in infos for mark in _declared(info)}
    assert sorted(declared - set(table.marks)) == sorted(EXPLAINED)


def test_a_hole_is_noticed(caller: Caller) -> None:
    """A table in which nothing was executed covers nothing that is declared."""
    [info] = [each for each in caller.losses() if each.name == "cross_entropy"]
    declared = set(_declared(info))
    assert ("cross_entropy", "reduction", "mean", "") in declared
    assert ("cross_entropy", "option", "label_smoothing", "given") in declared
    assert ("cross_entropy", "dtype", "batched.target", "uint8") in declared
    assert ("cross_entropy", "gradient", "weight", "probabilities") in declared
    assert not declared & set(Table(caller).marks)


def _declared(info: loss_info_pb2.LossInfo) -> Iterator[Mark]:
    """Return all facts that a loss declares, in the words of the table's marks."""
    for reduction in info.reductions:
        name = evaluation_pb2.Reduction.Name(reduction).removeprefix("REDUCTION_")
        yield info.name, "reduction", name.lower(), ""
    for layout in info.layouts:
        yield info.name, "layout", layout.name, ""
        for name, accepted in layout.data_types.items():
            for data_type in accepted.data_types:
                yield info.name, "dtype", f"{layout.name}.{name}", DATA_TYPES[data_type].name
    for each in info.inputs:
        yield info.name, "input", each.name, "given"
        if not each.required:
            yield info.name, "input", each.name, "absent"
        for layout_name in each.differentiable_in:
            yield info.name, "gradient", each.name, layout_name
    for option in info.options:
        yield from _declared_values(info.name, option)


def _declared_values(loss: str, option: loss_info_pb2.OptionInfo) -> Iterator[Mark]:
    """Return the values of an option that must have been tried."""
    yield loss, "option", option.name, "given"
    if not option.required:
        yield loss, "option", option.name, "absent"
    for choice in option.choices:
        yield loss, "option", option.name, repr(choice)
    if option.type == loss_info_pb2.OPTION_TYPE_BOOL:
        yield loss, "option", option.name, "False"
        yield loss, "option", option.name, "True"
    if option.HasField("default_value"):
        yield loss, "option", option.name, repr(decode_option(option.default_value))
