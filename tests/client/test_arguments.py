"""Timeouts of any size and type, and clients that somebody tries to copy."""

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from losswire.client import ArrayInput, AsyncClient, Client, Evaluation
from losswire.client._messages.thresholds import LEASE_AFTER_CALLS
from tests.support.harness import Child

_SMALL: dict[str, ArrayInput] = {"input": [3.0, 1.0], "target": [1.0, 1.0]}
_LARGE: dict[str, ArrayInput] = {
    "input": np.full((1000, 800), 3.0, np.float32),
    "target": np.ones((1000, 800), np.float32),
}
_ITEM = Evaluation("mse_loss", _SMALL)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as by default."""
    with Child(tmp_path_factory.mktemp("arguments") / "log") as child:
        yield child.address


def _over_leases(client: Client, timeout: Any) -> float:  # noqa: ANN401 (of any type)
    for _ in range(LEASE_AFTER_CALLS + 1):
        result = client.evaluate("mse_loss", _SMALL, timeout=timeout)
    return float(result.loss)


def _in_chunks(client: Client, timeout: Any) -> float:  # noqa: ANN401
    result = client.evaluate("mse_loss", _LARGE, timeout=timeout, progress=lambda _, __: None)
    return float(result.loss) / 2


def _in_stream(client: Client, timeout: Any) -> float:  # noqa: ANN401
    with client.stream(timeout=timeout) as stream:
        return float(stream.submit(_ITEM).result().loss)


def _in_region(client: Client, timeout: Any) -> float:  # noqa: ANN401
    with client.region(4096, timeout=timeout) as region:
        inputs = {name: region.array(2) for name in _SMALL}
        for name, each in inputs.items():
            each[...] = _SMALL[name]
        return float(client.evaluate("mse_loss", inputs, timeout=timeout).loss)


def _default(client: Client, timeout: Any) -> float:  # noqa: ANN401
    with Client(str(client).split()[-1].rstrip(">"), timeout=timeout) as own:
        return float(own.evaluate("mse_loss", _SMALL).loss)


def _async(client: Client, timeout: Any) -> float:  # noqa: ANN401
    async def run() -> float:
        async with AsyncClient(str(client).split()[-1].rstrip(">")) as own:
            return float((await own.evaluate("mse_loss", _SMALL, timeout=timeout)).loss)

    return asyncio.run(run())


_DOORS: dict[str, Callable[[Client, Any], float]] = {
    "leases": _over_leases,
    "copies": lambda client, timeout: float(
        client.evaluate("mse_loss", _LARGE, timeout=timeout).loss / 2
    ),
    "chunks": _in_chunks,
    "stream": _in_stream,
    "region": _in_region,
    "many": lambda client, timeout: float(
        client.evaluate_many([_ITEM], timeout=timeout)[0].loss  # type: ignore[union-attr]
    ),
    "summary": lambda client, timeout: client.summarize("mse_loss", _SMALL, timeout=timeout).mean,
    "default": _default,
    "asyncio": _async,
}


@pytest.mark.parametrize("timeout", [1e10, 1e308, 10**400, np.float32(500)])
@pytest.mark.parametrize("door", _DOORS)
def test_any_number_of_seconds_is_taken(address: str, door: str, timeout: Any) -> None:  # noqa: ANN401
    """However large it is, a call neither fails at once nor waits differently."""
    with Client(address) as client:
        assert _DOORS[door](client, timeout) == 2.0


@pytest.mark.parametrize("timeout", ["5", True, 5j, [5]])
@pytest.mark.parametrize("door", _DOORS)
def test_what_is_no_number_is_named(address: str, door: str, timeout: Any) -> None:  # noqa: ANN401
    """The error has the argument's name and what it got."""
    with (
        Client(address) as client,
        pytest.raises(TypeError, match=r"^timeout: expected a number of seconds, got"),
    ):
        _DOORS[door](client, timeout)


_COPIERS: tuple[Callable[[object], object], ...] = (pickle.dumps, copy.copy, copy.deepcopy)


@pytest.mark.parametrize("copier", _COPIERS)
def test_what_belongs_to_a_process_is_not_copied(
    address: str, copier: Callable[[object], object]
) -> None:
    """Clients and their parts say what to do instead; their results are as good as any."""
    with Client(address) as client, client.region(4096) as region:
        later = AsyncClient(address)
        own = (client, later, client.stream(), later.stream(), region, client.runs, later.runs)
        for each in own:
            with pytest.raises(TypeError, match="make a client in each process") as caught:
                copier(each)
            assert str(caught.value).startswith(f"a {type(each).__name__} cannot be pickled")
        copier(client.evaluate("mse_loss", _SMALL))
