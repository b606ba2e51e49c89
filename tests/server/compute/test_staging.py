"""Tensors go to a device and back through a few slabs, in order, however late the device is."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from losswire.server.catalogue.record import LossRecord
from losswire.server.compute import autograd, reduce
from losswire.server.compute import dispatch as compute_module
from losswire.server.compute.closed_forms import blocks as driver
from losswire.server.compute.devices import transfers
from losswire.server.compute.devices.pinned_staging import Staging
from losswire.server.compute.dispatch import compute
from losswire.server.losses import builtin_registry
from losswire.server.memory.regions.places import Destination
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validate import validate
from losswire.v1 import tensor_pb2
from tests.support.exact import same_bits
from tests.support.lanes import LazyLane, PromptLane, staging
from tests.support.requests import evaluation
from tests.support.table import plan

_CPU = torch.device("cpu")
_REGISTRY = builtin_registry()
_RECORDS = list(_REGISTRY)
_CELLS = 12
"""The number of cells of each loss that are computed."""

_RNG = np.random.default_rng(3)
_TENSORS = {
    "many slabs": torch.from_numpy(_RNG.standard_normal((37, 41))),
    "part of a slab": torch.arange(10.0),
    "one slab": torch.arange(256, dtype=torch.int32),
    "a number": torch.tensor(2.5),
    "bfloat16": torch.arange(3000).to(torch.bfloat16).view(3, 1000),
    "truth values": torch.arange(3000) % 3 == 0,
    "not contiguous": torch.arange(6000.0).view(60, 100).T,
    "one number for all": torch.tensor(1.5).expand(20, 100),
}


@pytest.mark.parametrize("tensor", _TENSORS.values(), ids=_TENSORS.keys())
@pytest.mark.parametrize("slabs", [1, 3])
def test_tensors_come_back_unchanged(tensor: Tensor, slabs: int) -> None:
    """Through a device that does nothing before it must; the source may change meanwhile."""
    stage, lanes, _ = staging(LazyLane, slabs)
    given = tensor.clone(memory_format=torch.preserve_format)
    arrived = stage.bring(given)
    given.copy_(torch.zeros_like(given))
    computed = lanes.computing.empty(arrived)
    lanes.computing.copy(computed, arrived)
    with stage:
        found = stage.fetch(computed)
    assert same_bits(found, transfers.transfers_for(_CPU).fetch(tensor.contiguous()))


def test_several_are_on_their_way_at_once() -> None:
    """Each ends where it belongs, though they share the slabs."""
    stage, lanes, _ = staging(LazyLane)
    tensors = [torch.full((size,), float(size)) for size in (1000, 10, 700, 300, 256, 1)]
    arrived = [stage.bring(each) for each in tensors]
    computed = [lanes.computing.empty(each) for each in arrived]
    for target, source in zip(computed, arrived, strict=True):
        lanes.computing.copy(target, source)
    with stage:
        found = [stage.fetch(each) for each in computed]
    for array, tensor in zip(found, tensors, strict=True):
        assert np.array_equal(array, tensor.numpy())


def test_results_come_right_into_an_array() -> None:
    """A fetch into an array returns that array."""
    stage, _, _ = staging(PromptLane)
    place: npt.NDArray[Any] = np.zeros((20, 30), np.float32)
    with stage:
        found = stage.fetch(torch.full((20, 30), 3.0), place)
    assert found.ctypes.data == place.ctypes.data
    assert (place == 3).all()


def test_memory_is_pinned_once() -> None:
    """All of it before the first tensor, and none for any tensor."""
    stage, _, pins = staging(LazyLane)
    assert [each.nbytes for each in pins] == [1024] * 6
    with stage:
        for _ in range(10):
            stage.fetch(stage.bring(torch.zeros(5000)))
    assert len(pins) == 6


def test_a_slab_is_used_again_only_when_the_device_has_read_it() -> None:
    """The host waits for the copy that was put longest ago, and for no other."""
    stage, lanes, _ = staging(LazyLane, slabs=2)
    stage.bring(torch.zeros(256))
    stage.bring(torch.zeros(256))
    arriving = lanes.arriving
    assert isinstance(arriving, LazyLane)
    assert arriving.done == 0
    stage.bring(torch.zeros(256))
    assert arriving.done == 1


def test_memory_that_two_lanes_use_is_kept_for_both() -> None:
    """The computing lane uses arrived tensors, and the leaving lane results."""
    stage, lanes, _ = staging(LazyLane)
    arrived = stage.bring(torch.zeros(2000))
    stage.fetch(arrived)
    for lane in (lanes.computing, lanes.leaving):
        assert isinstance(lane, LazyLane)
        assert [each.data_ptr() for each in lane.kept] == [arrived.data_ptr()]


def _use(monkeypatch: pytest.MonkeyPatch, stage: Staging) -> None:
    for module in (autograd, reduce, compute_module, driver):
        monkeypatch.setattr(module, "transfers_for", lambda device: stage)  # noqa: ARG005


@pytest.mark.parametrize("record", _RECORDS, ids=lambda record: record.name)
def test_every_loss_is_the_same_through_slabs(
    monkeypatch: pytest.MonkeyPatch, record: LossRecord
) -> None:
    """Values and gradients have the bits that they have without."""
    cells = list(plan(record))
    works = [
        validate(decode(cell.ask.message()), record)
        for cell in cells[:: max(1, len(cells) // _CELLS)]
    ]
    expected = [compute(each, _CPU) for each in works]
    stage, _, _ = staging(PromptLane, slab_bytes=64)
    _use(monkeypatch, stage)
    for work, direct in zip(works, expected, strict=True):
        staged = compute(work, _CPU)
        assert same_bits(staged.loss, direct.loss)
        assert staged.gradients.keys() == direct.gradients.keys()
        for name, gradient in direct.gradients.items():
            assert same_bits(staged.gradients[name], gradient)


def test_a_gradient_comes_right_where_the_caller_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there when the outcome is, and in the outcome only as a place."""
    stage, _, _ = staging(PromptLane)
    _use(monkeypatch, stage)
    x = _RNG.standard_normal((40, 50)).astype(np.float32)
    message = evaluation("mse_loss", {"input": x, "target": 0 * x}, gradients_for=["input"])
    work = validate(decode(message), _REGISTRY.find("mse_loss"))
    place = Destination(np.zeros_like(x), tensor_pb2.Region())
    outcome = compute(replace(work, destinations={"input": place}), _CPU)
    assert outcome.gradients == {}
    np.testing.assert_allclose(place.array, 2 * x / x.size, rtol=1e-6)


def test_results_land_after_an_error_too() -> None:
    """Nothing is written to a caller's memory after the answer."""
    stage, _, _ = staging(LazyLane)
    place: npt.NDArray[Any] = np.zeros(500, np.float32)

    def fail() -> None:
        with stage:
            stage.fetch(torch.full((500,), 3.0), place)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (place == 3).all()
