"""Resident tensors of the SDK: put once, named ever after, sent again where they are missing."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional as F

from losswire.client import (
    ArrayInput,
    AsyncClient,
    Client,
    Evaluation,
    EvaluationResult,
    FailedPreconditionError,
    LosswireError,
    ResidentTensor,
    ResourceExhaustedError,
    RetryPolicy,
    UnimplementedError,
)
from losswire.v1 import loss_service_pb2, tensor_service_pb2
from tests.client.streams.test_streams import map_async, map_blocking
from tests.support.harness import Child
from tests.support.resident import identity, noise

LOGITS = noise(1, 6, 4)
CLASSES = np.array([0, 3, 1, 2, 2, 0])
MIB = 1 << 20


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that keeps at most 1 MiB."""
    log = tmp_path_factory.mktemp("small") / "log"
    with Child(log, "--resident-quota-mib", "1") as child:
        yield child.address


def _same(found: EvaluationResult, expected: EvaluationResult) -> None:
    """Compare all numbers of two results, bit for bit."""
    np.testing.assert_array_equal(found.loss, expected.loss)
    assert found.gradients.keys() == expected.gradients.keys()
    for name, gradient in found.gradients.items():
        np.testing.assert_array_equal(gradient, expected.gradients[name])
    assert found.mean_numerator == expected.mean_numerator
    assert found.mean_denominator == expected.mean_denominator


def _outcome(outcome: EvaluationResult | LosswireError) -> EvaluationResult:
    assert isinstance(outcome, EvaluationResult), outcome
    return outcome


PUT: dict[str, Any] = {
    "numpy": LOGITS,
    "torch": torch.arange(6).reshape(2, 3),
    "torch bfloat16": torch.ones(3).bfloat16(),
    "strides": np.arange(24, dtype=np.float64).reshape(4, 6)[::-2, 1::2],
    "big-endian": np.arange(3, dtype=">f4"),
    "a number": 1.5,
    "a list": [[1, 2], [3, 4]],
    "nothing": np.zeros((0, 3), ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("what", PUT)
def test_a_handle_says_what_the_server_holds(small: str, what: str) -> None:
    """The id that the client computes is the documented hash, and the server finds it."""
    with Client(small) as client:
        handle = client.put(PUT[what])
        numpy = torch.as_tensor(PUT[what]) if "torch" in what else np.asarray(PUT[what])
        assert handle.shape == tuple(numpy.shape)
        assert handle.nbytes == handle.dtype.itemsize * np.prod(handle.shape, dtype=int)
        assert len(handle.id) == 32
        assert client.stat(handle)
        assert handle.delete()
        assert not handle.delete()
        assert not client.stat(handle)
    if isinstance(PUT[what], np.ndarray) and PUT[what].dtype.isnative:
        assert handle.id == identity(PUT[what])
    assert "ResidentTensor" in repr(handle)


def test_both_clients_do_the_same(small: str) -> None:
    """The asynchronous client puts, asks, evaluates and forgets; handles serve either client."""

    async def run() -> None:
        async with AsyncClient(small) as client:
            handle = await client.put(LOGITS)
            assert await client.stat(handle)
            inputs: dict[str, ArrayInput] = {"input": handle, "target": CLASSES}
            result = await client.evaluate("cross_entropy", inputs, gradients=["input"])
            with Client(small) as other:
                _same(other.evaluate("cross_entropy", inputs, gradients=["input"]), result)
            assert await handle.delete()
            assert not await client.delete(handle)
            _same(await client.evaluate("cross_entropy", inputs, gradients=["input"]), result)

    asyncio.run(run())


def test_what_is_held_is_not_sent_again(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second put of equal values asks, and sends nothing."""
    with Client(small) as first, Client(small) as second:
        first.put(LOGITS)
        monkeypatch.setattr(ResidentTensor, "parts", None)
        assert second.put(LOGITS.copy()).id == identity(LOGITS)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_a_resident_head_gives_exact_gradients(small: str, dtype: str) -> None:
    """linear_cross_entropy of hidden states against a head that stays: torch's own numbers."""
    own = getattr(torch, dtype)
    hidden = torch.from_numpy(noise(2, 32, 16)).to(own)
    head = torch.from_numpy(noise(3, 100, 16)).to(own)
    target = torch.arange(32)
    kind = torch.float64 if dtype == "float64" else torch.float32
    leaves = [each.to(kind).requires_grad_() for each in (hidden, head)]
    values = F.linear_cross_entropy(leaves[0], leaves[1], target, reduction="none")
    expected = torch.autograd.grad(values, leaves, torch.full((32,), 1 / 32, dtype=kind))
    with Client(small) as client:
        handle = client.put(head)
        inputs: dict[str, ArrayInput] = {"input": hidden, "linear_weight": handle, "target": target}
        only, both = (
            client.evaluate("linear_cross_entropy", inputs, gradients=names, engine="autograd")
            for names in (["input"], ["input", "linear_weight"])
        )
    assert list(only.gradients) == ["input"]
    np.testing.assert_array_equal(only.gradients["input"], both.gradients["input"])
    for name, gradient in zip(("input", "linear_weight"), expected, strict=True):
        wanted = gradient.to(own).to(torch.float64).numpy()
        np.testing.assert_array_equal(both.gradients[name].astype(np.float64), wanted)
    np.testing.assert_allclose(only.loss, values.mean().detach().numpy(), rtol=1e-6)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port: int = reserved.getsockname()[1]
        return port


def test_a_server_that_was_started_again_is_sent_what_it_lost(tmp_path: Path) -> None:
    """evaluate, evaluate_many and a stream all succeed with handles of before the restart."""
    listen = f"127.0.0.1:{_free_port()}"
    policy = RetryPolicy(max_backoff=0.2)
    quick = ("--drain-seconds", "0")  # an open stream counts as a call in flight
    with Client(listen, retry=policy) as client, ExitStack() as streams:
        with Child(tmp_path / "first", *quick, listen=listen):
            stream = streams.enter_context(client.stream())
            handle = client.put(LOGITS)
            weight = client.put(np.arange(1, 7, dtype=np.float32))
            item = Evaluation(
                "cross_entropy",
                {"input": handle, "target": CLASSES},
                gradients=["input"],
                sample_weight=weight,
            )
            plain = Evaluation("sigmoid", {"input": np.float32(0)})
            expected = stream.submit(item).result()
        for call in ("evaluate", "many", "stream"):
            with Child(tmp_path / call, *quick, listen=listen):
                assert not client.stat(handle)
                if call == "stream":
                    found = stream.submit(item).result()
                elif call == "many":
                    before, outcome, after = client.evaluate_many([plain, item, plain])
                    assert _outcome(before).loss == _outcome(after).loss == 0.5
                    found = _outcome(outcome)
                else:
                    found = client.evaluate(
                        item.loss,
                        item.inputs,
                        gradients=item.gradients,
                        sample_weight=item.sample_weight,
                    )
                _same(found, expected)
                assert client.stat(handle)
                assert client.stat(weight)


@pytest.mark.parametrize("map_items", [map_blocking, map_async])
def test_a_stream_sends_what_is_missing_to_the_end(small: str, map_items: Any) -> None:  # noqa: ANN401
    """All items of a stream that closes at once name a tensor that is missing."""
    with Client(small) as client:
        handle = client.put(noise(4, 50, 40))
        handle.delete()
    targets = [np.full(50, number % 40) for number in range(100)]
    items = [Evaluation("cross_entropy", {"input": handle, "target": each}) for each in targets]
    plain = [
        Evaluation("cross_entropy", {"input": noise(4, 50, 40), "target": each}) for each in targets
    ]
    settings = {"retry": RetryPolicy(max_attempts=1)}
    found = map_items(small, items, settings=settings)
    for one, other in zip(found, map_items(small, plain), strict=True):
        _same(_outcome(one), _outcome(other))


def test_every_replica_is_sent_what_it_misses(tmp_path: Path) -> None:
    """With two targets in turn each gets the tensor once; forgetting reaches both."""
    with (
        Child(tmp_path / "a") as a,
        Child(tmp_path / "b") as b,
        Client(f"{a.address},{b.address}") as client,
    ):
        handle = client.put(LOGITS)
        assert not client.stat(handle)
        inputs: dict[str, ArrayInput] = {"input": handle, "target": CLASSES}
        results = [client.evaluate("cross_entropy", inputs) for _ in range(4)]
        assert {float(result.loss) for result in results} == {float(results[0].loss)}
        assert client.stat(handle)
        with Client(a.address) as one, Client(b.address) as other:
            assert one.stat(handle)
            assert other.stat(handle)
            assert client.delete(handle)
            assert not one.stat(handle)
            assert not other.stat(handle)


def test_an_array_that_was_changed_is_not_sent_as_another(small: str) -> None:
    """Healing would send other values than were put; that is an error of its own."""
    array = noise(5, 10)
    with Client(small) as client:
        handle = client.put(array)
        before = client.evaluate("sigmoid", {"input": handle})
        array += 1
        _same(client.evaluate("sigmoid", {"input": handle}), before)
        handle.delete()
        with pytest.raises(FailedPreconditionError) as changed:
            client.evaluate("sigmoid", {"input": handle})
        assert changed.value.reason == "RESIDENT_TENSOR_CHANGED"
        [outcome] = client.evaluate_many([Evaluation("sigmoid", {"input": handle})])
        assert isinstance(outcome, LosswireError)
        assert outcome.reason == "RESIDENT_TENSOR_CHANGED"


def test_what_does_not_fit_together_fails_in_the_end(small: str) -> None:
    """Two tensors that displace each other: the evaluation gives up by itself, in bounded tries."""
    with Client(small) as client:
        one, other = client.put(noise(6, 150_000)), client.put(noise(7, 150_000))
        with pytest.raises(FailedPreconditionError) as missing:
            client.evaluate("mse_loss", {"input": one, "target": other})
        assert missing.value.reason == "MISSING_RESIDENT_TENSOR"
        assert [each.field for each in missing.value.violations] == ['inputs["input"].resident']
        with pytest.raises(ResourceExhaustedError) as refused:
            client.put(np.zeros(MIB, np.float32))
        assert (refused.value.reason, refused.value.retryable) == ("OVER_LIMIT", False)


def test_a_server_without_room_says_so(tmp_path: Path) -> None:
    """A quota of 0 is UnimplementedError from `put`."""
    with (
        Child(tmp_path / "log", "--resident-quota-mib", "0") as child,
        Client(child.address) as client,
        pytest.raises(UnimplementedError, match="keeps no resident tensors"),
    ):
        client.put(LOGITS)


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        (np.array(["text"]), TypeError, "cannot be sent"),
        (np.zeros((1,) * 9), ValueError, "9 axes"),
        (object(), TypeError, "not an array"),
    ],
)
def test_what_cannot_be_put(small: str, value: Any, kind: type[Exception], says: str) -> None:  # noqa: ANN401
    """Refused before anything is sent."""
    with Client(small) as client, pytest.raises(kind, match=says):
        client.put(value)


def test_handles_stand_for_whole_arrays_only(small: str) -> None:
    """A handle cannot be put, nor be a part of a list."""
    with Client(small) as client:
        handle = client.put(LOGITS)
        with pytest.raises(TypeError, match="resident tensor already"):
            client.put(handle)
        pair: Any = [handle, handle]
        with pytest.raises(TypeError, match="not an array of numbers"):
            client.evaluate("sigmoid", {"input": pair})


def test_many_threads_put_and_evaluate_while_others_displace(small: str) -> None:
    """Each of 6 threads has 400 kB of 1 MiB: every result is that of its own tensor."""
    arrays = [noise(10 + number, 250, 400) for number in range(6)]
    barrier = threading.Barrier(len(arrays))

    def work(array: npt.NDArray[np.float32]) -> None:
        with Client(small) as client:
            handle = client.put(array)
            expected = client.evaluate("mse_loss", {"input": array, "target": array + 1})
            barrier.wait()
            for _ in range(15):
                found = client.evaluate("mse_loss", {"input": handle, "target": array + 1})
                _same(found, expected)

    with ThreadPoolExecutor(len(arrays)) as pool:
        list(pool.map(work, arrays))


def test_of_many_calls_that_miss_a_tensor_one_sends_it(small: str) -> None:
    """8 threads of one client: the tensor goes once; so it does with 8 tasks."""
    sent: list[bytes] = []
    array = noise(20, 1000)

    class Counted(ResidentTensor):
        """A handle that counts how often it is sent."""

        def parts(self) -> Iterator[bytes]:
            """Count, and send."""
            sent.append(self.id)
            return super().parts()

    with Client(small) as client:
        handle = Counted(array, client)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: client.evaluate("sigmoid", {"input": handle}), range(8)))
        assert len(sent) == 1
        client.delete(handle)

    async def run() -> None:
        async with AsyncClient(small) as client:
            calls = (client.evaluate("sigmoid", {"input": handle}) for _ in range(8))
            await asyncio.gather(*calls)

    asyncio.run(run())
    assert len(sent) == 2


def test_the_parts_are_messages_of_the_contract() -> None:
    """A header and then data, in parts that any server takes."""
    with Client("127.0.0.1:1") as client:
        handle = ResidentTensor(np.zeros(400_000, np.float32), client)
    parts = [tensor_service_pb2.PutTensorRequest.FromString(part) for part in handle.parts()]
    assert [part.WhichOneof("part") for part in parts] == ["header", *["data"] * 4]
    assert max(part.ByteSize() for part in parts) < MIB
    assert sum(len(part.data) for part in parts) == handle.nbytes
    request = loss_service_pb2.EvaluateRequest()
    request.evaluation.inputs["input"].CopyFrom(handle.reference())
    assert request.ByteSize() < 100
