"""A loss is one function: added from outside, it is served, listed, described and tested."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from losswire.server.catalogue.record import LossRecord
from losswire.server.catalogue.registry import Registry, records_in
from losswire.server.docs import render
from losswire.server.losses import builtin_registry
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import decode_option
from tests.support.caller import Caller, calling
from tests.support.process import running_server
from tests.support.reference import REFERENCES, Inputs, Options, Reference
from tests.support.table import Table

MODULE = "losses_from_outside"
SOURCE = '''
"""A loss that the server does not have."""

from torch import Tensor

from losswire.server.declare import Input, Option, Range, Terms, floats, layout, loss


@loss(
    layouts=(layout("rows", input=floats("N *D"), target=floats("N *D"), values="N *D"),),
    inputs={
        "input": Input(meaning="Predictions.", differentiable=True),
        "target": Input(meaning="What should have been predicted.", promotes=True),
    },
    options={
        "scale": Option(
            meaning="What the difference is divided by.", rules=(Range(low=0.0, open_low=True),)
        )
    },
    source="losses_from_outside.cauchy_loss",
)
def cauchy_loss(input: Tensor, target: Tensor, scale: float = 1.0) -> Terms:
    """The logarithm of 1 plus the squared difference."""
    return Terms(((input - target) / scale).square().log1p())
'''


def _cauchy(inputs: Inputs, options: Options, reduction: str) -> torch.Tensor:
    """Compute the loss in torch."""
    scale = options.get("scale", 1.0)
    values = torch.log1p(torch.square((inputs["input"] - inputs["target"]) / scale))
    reduced = {"none": values, "sum": values.sum(), "mean": values.mean()}
    return reduced[reduction]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module that defines a loss."""
    made = tmp_path_factory.mktemp("losses")
    (made / f"{MODULE}.py").write_text(SOURCE, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def extended(folder: Path) -> Iterator[Caller]:
    """A connection to a server that was started with that module."""
    environment = {"PYTHONPATH": str(folder)}
    with (
        running_server("--losses", MODULE, environment=environment) as address,
        calling(address) as connected,
    ):
        yield connected


@pytest.fixture
def record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> LossRecord:
    """The record of that loss."""
    monkeypatch.syspath_prepend(folder)
    [found] = records_in(importlib.import_module(MODULE))
    return found


def test_added_loss_is_listed(extended: Caller) -> None:
    """ListLosses has the loss from outside among all others, described by its record."""
    infos = {info.name: info for info in extended.losses()}
    assert set(infos) == {"cauchy_loss", *(each.name for each in builtin_registry())}
    info = infos["cauchy_loss"]
    assert info.summary == "The logarithm of 1 plus the squared difference."
    assert [each.name for each in info.inputs] == ["input", "target"]
    assert info.inputs[0].data_types[:1] == [tensor_pb2.DATA_TYPE_FLOAT16]
    assert list(info.inputs[0].differentiable_in) == ["rows"]
    assert not info.inputs[1].differentiable_in
    [option] = info.options
    assert (option.name, decode_option(option.default_value)) == ("scale", 1.0)
    assert option.range == "(0, inf]"
    assert info.default_reduction == evaluation_pb2.REDUCTION_MEAN
    assert (info.layouts[0].inputs["input"], info.layouts[0].values) == ("N *D", "N *D")


def test_added_loss_is_described(record: LossRecord) -> None:
    """The documentation has a section for the loss from outside, made from its record."""
    text = render(Registry([*builtin_registry(), record]))
    assert "cauchy_loss" not in render(builtin_registry())
    _, _, section = text.partition("\n## cauchy_loss\n")
    section = section.partition("\n## ")[0]
    for part in ("The logarithm of 1 plus", "What the difference is divided by.", "(0, inf]"):
        assert part in section


def test_added_loss_equals_torch(
    extended: Caller, record: LossRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of all combinations is made from the new record and equals torch to the bit."""
    monkeypatch.setitem(REFERENCES, "cauchy_loss", Reference(_cauchy))
    table = Table(extended)
    assert table.execute(record) == []
    assert table.cells["cauchy_loss"] > 100
    covered = {(kind, name, detail) for _, kind, name, detail in table.marks}
    assert {
        ("reduction", "none", ""),
        ("reduction", "mean", ""),
        ("reduction", "sum", ""),
        ("option", "scale", "given"),
        ("option", "scale", "absent"),
        ("dtype", "rows.input", "bfloat16"),
        ("gradient", "input", "rows"),
    } <= covered
