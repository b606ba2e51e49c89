"""Arrays in the caller's own regions are used in place."""

import asyncio
import gc
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import (
    ArrayInput,
    AsyncClient,
    CancelledError,
    Client,
    EvaluationResult,
    Region,
    UnimplementedError,
)
from losswire.client._memory.placement import Placement
from tests.client.memory.conftest import (
    CLASSES,
    LOGITS,
    ROWS,
    WIDTH,
    evaluate,
    same,
)
from tests.support.harness import Child
from tests.support.mapped import descriptors, eventually, mapped_regions
from tests.support.scripted import Scripted

Array = npt.NDArray[Any]


def test_arrays_in_a_region_are_used_in_place(sharing: Child, plain: EvaluationResult) -> None:
    """Inputs are read and gradients written in place, with the bits of any other way."""
    before = mapped_regions()
    with Client(sharing.address) as client, client.region(2 * LOGITS.nbytes + 8192) as region:
        logits, out = region.array(LOGITS.shape), region.array(LOGITS.shape)
        classes = region.array(ROWS, np.int64)
        logits[...], classes[...] = LOGITS, CLASSES
        for _ in range(3):
            out[...] = 7
            result = client.evaluate(
                "cross_entropy",
                {"input": logits, "target": classes},
                gradients=["input"],
                out={"input": out},
            )
            assert result.transport == "region"
            assert result.gradients["input"] is out
            assert same(result, plain)
        assert mapped_regions() - before == 1


def test_known_places_are_told_apart(sharing: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once composed, a request goes again for the same key and places, and for no others."""
    composed: list[int] = []
    compose = Placement.operation

    def counted(placement: Any, leases: Any) -> Any:  # noqa: ANN401 (the method's own)
        composed.append(1)
        return compose(placement, leases)

    monkeypatch.setattr(Placement, "operation", counted)
    square = LOGITS[:400, :400]
    classes = CLASSES[:400] % 400
    with Client(sharing.address) as client, client.region(6 * square.nbytes) as region:
        first, second, out = (region.array(square.shape) for _ in range(3))
        first[...], second[...] = square, square + square.T
        other = np.ascontiguousarray(classes[::-1])
        # The transposed array has the same address and the same shape.
        for logits in (first, second, first.T):
            for target in (classes, other):
                for into in (None, {"input": out}):
                    for options in ({}, {"label_smoothing": 0.5}, {"ignore_index": 3}):
                        ask = partial(client.evaluate, "cross_entropy", gradients=["input"])
                        inputs = {"input": logits, "target": target}
                        results = [ask(inputs, options, out=into) for _ in range(2)]
                        found = [each.gradients["input"].copy() for each in results]
                        plain = ask({"input": logits.copy(), "target": target}, options)
                        for gradient in found:
                            np.testing.assert_array_equal(gradient, plain.gradients["input"])
        before = len(composed)
        for scale in (1, 2, 3):
            first[...] = square * scale
            result = client.evaluate(
                "cross_entropy",
                {"input": first, "target": classes},
                gradients=["input"],
                out={"input": out},
            )
            assert (result.transport, result.gradients["input"] is out) == ("region", True)
        assert len(composed) == before
        out.flags.writeable = False
        with pytest.raises(ValueError, match="writable"):
            client.evaluate(
                "cross_entropy",
                {"input": first, "target": classes},
                gradients=["input"],
                out={"input": out},
            )


def test_what_is_small_is_sent_wherever_it_lies(sharing: Child) -> None:
    """That takes less time; where a gradient is to go to a region, all is used in place."""
    inputs: dict[str, Any] = {"input": LOGITS[:32, :10].copy(), "target": CLASSES[:32] % 10}
    with Client(sharing.address) as client:
        ways = [client.evaluate("cross_entropy", inputs).transport for _ in range(2)]
        with client.region(8192) as region:
            placed = {name: region.array(each.shape, each.dtype) for name, each in inputs.items()}
            for name, each in inputs.items():
                placed[name][...] = each
            ways += [client.evaluate("cross_entropy", each).transport for each in (placed, inputs)]
            out = {"input": region.array((32, 10))}
            for _ in range(3):
                into = client.evaluate("cross_entropy", placed, gradients=["input"], out=out)
                sent = client.evaluate("cross_entropy", inputs, gradients=["input"])
                assert same(into, sent)
                ways += [into.transport, sent.transport]
        ways.append(client.evaluate("cross_entropy", inputs).transport)
    assert ways == ["unary", "unary", "local", "local", *3 * ("region", "local"), "unary"]


def test_the_async_client_has_regions_too(sharing: Child, plain: EvaluationResult) -> None:
    """The same, with awaits."""

    async def run() -> None:
        async with AsyncClient(sharing.address) as client:
            with await client.region(2 * LOGITS.nbytes) as region:
                logits, out = region.array(LOGITS.shape), region.array(LOGITS.shape)
                logits[...] = LOGITS
                batch = {"input": logits, "target": CLASSES}
                result = await client.evaluate(
                    "cross_entropy", batch, gradients=["input"], out={"input": out}
                )
                assert (result.transport, result.gradients["input"] is out) == ("region", True)
                assert same(result, plain)

    asyncio.run(run())


def test_a_server_without_regions(echoing: Scripted) -> None:
    """Asking for one says why there is none."""
    with Client(echoing.address) as client, pytest.raises(UnimplementedError, match="no memory"):
        client.region(1)


def test_a_region_belongs_to_one_server() -> None:
    """With several targets nobody could tell which."""
    with Client("127.0.0.1:1,127.0.0.1:2") as client, pytest.raises(ValueError, match="one server"):
        client.region(1)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "1"])
def test_sizes_are_numbers_of_bytes(size: Any) -> None:  # noqa: ANN401 (wrong on purpose)
    """What is no size is refused without a server."""
    with Client("127.0.0.1:1") as client, pytest.raises(ValueError, match="nbytes"):
        client.region(size)


def test_arrays_of_a_region(sharing: Child) -> None:
    """They are aligned, clear and apart, of any type, and no more than there is room for."""
    with Client(sharing.address) as client, client.region(4096) as region:
        arrays = [region.array(3), region.array((2, 2), "int64"), region.array((), bool)]
        assert [each.ctypes.data % 64 for each in arrays] == [0, 0, 0]
        assert [(each.shape, each.dtype.name) for each in arrays] == [
            ((3,), "float32"),
            ((2, 2), "int64"),
            ((), "bool"),
        ]
        assert not any(each.any() for each in arrays)
        for wrong in (4096, (2**40, 2**40), -1):
            with pytest.raises(ValueError, match="array: "):
                region.array(wrong, np.uint8)
        region.array(4096 - 3 * 64, np.uint8)
        with pytest.raises(ValueError, match="0 left"):
            region.array(1)
    with pytest.raises(ValueError, match="closed"):
        region.array(1)
    assert "closed" in repr(region)


def test_arrays_outlive_their_region(sharing: Child, plain: EvaluationResult) -> None:
    """A result in a region that was closed, by a client that was closed, is still the result."""
    with Client(sharing.address) as client, client.region(LOGITS.nbytes) as region:
        out = region.array(LOGITS.shape)
        result = evaluate(client, out={"input": out})
        assert result.transport == "region"
    with Client(sharing.address) as client:
        held = descriptors(sharing.process.pid)
        assert same(result, plain)
        del result, out, region
        gc.collect()
        assert eventually(lambda: descriptors(sharing.process.pid) < held)


def test_a_closed_client_shares_nothing(sharing: Child) -> None:
    """After `close`, regions are refused like any other call."""
    client = Client(sharing.address)
    region: Region = client.region(4096)
    client.close()
    with pytest.raises(ValueError, match="closed"):
        region.array(1)
    with pytest.raises((RuntimeError, CancelledError)):
        client.region(1)


def test_a_mask_in_a_region_is_a_weight(sharing: Child) -> None:
    """It is converted and sent, beside arrays that are used in place, however often."""
    with Client(sharing.address) as client, client.region(LOGITS.nbytes + 8192) as region:
        logits, mask = region.array(LOGITS.shape), region.array(ROWS, np.int32)
        logits[...] = LOGITS
        weight: ArrayInput = [1, 2] * (WIDTH // 2)
        inputs = {"input": logits, "target": CLASSES, "weight": weight}
        for kept in (0, 10, 20):
            mask[...] = np.arange(ROWS) < kept
            result = client.evaluate("cross_entropy", inputs, sample_weight=mask)
            assert (result.transport, result.count) == ("region", kept)
