"""Arrays in shared memory: whose contents they are, and what is said when those are gone."""

import asyncio
import gc
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import (
    AsyncClient,
    CancelledError,
    Client,
    DeadlineExceededError,
    Evaluation,
    FailedPreconditionError,
    InvalidArgumentError,
    Region,
)
from tests.support.harness import Child
from tests.support.mapped import open_files

Array = npt.NDArray[Any]

_SHAPE = (300, 500)
_DRAW = np.random.default_rng(11)
_INPUT = _DRAW.standard_normal(_SHAPE, dtype=np.float32)
_TARGET = _DRAW.standard_normal(_SHAPE, dtype=np.float32)
_BYTES = 4 * _INPUT.nbytes


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server with regions, as by default."""
    with Child(tmp_path_factory.mktemp("contents") / "log", "--memory-budget-mib=256") as child:
        yield child


@contextmanager
def _stopped(child: Child) -> Iterator[None]:
    """Keep the server from running."""
    child.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.process.send_signal(signal.SIGCONT)


def _regions(process: int) -> int:
    """Count the regions of a process, by its descriptors."""
    return sum("losswire-region" in target for _, target in open_files(process))


def _eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def _empty_all_regions(child: Child) -> None:
    """Do what a server must not: punch the pages out of all its regions."""
    for each, target in open_files(child.process.pid):
        if "losswire-region" in target:
            descriptor = os.open(each, os.O_RDWR)
            with mmap.mmap(descriptor, os.fstat(descriptor).st_size) as memory:
                memory.madvise(mmap.MADV_REMOVE)
            os.close(descriptor)


def _evaluate(client: Client, logits: Array, out: Array) -> object:
    inputs = {"input": logits, "target": _TARGET}
    return client.evaluate("mse_loss", inputs, gradients=["input"], out={"input": out})


def _inline(client: Client, logits: Array, _: Array) -> object:
    inputs = {"input": logits[:2], "target": _TARGET[:2]}
    return client.evaluate("mse_loss", inputs)


def _transposed(client: Client, logits: Array, _: Array) -> object:
    return client.evaluate("mse_loss", {"input": logits.T, "target": _TARGET.T})


def _in_chunks(client: Client, logits: Array, out: Array) -> object:
    inputs = {"input": logits, "target": _TARGET}
    return client.evaluate(
        "mse_loss",
        inputs,
        gradients=["input"],
        out={"input": out},
        progress=lambda _, __: None,
    )


def _many(client: Client, logits: Array, _: Array) -> object:
    item = Evaluation("mse_loss", {"input": logits[:2], "target": _TARGET[:2]})
    return client.evaluate_many([item])


def _in_stream(client: Client, logits: Array, _: Array) -> object:
    item = Evaluation("mse_loss", {"input": logits[:2], "target": _TARGET[:2]})
    with client.stream() as stream:
        return stream.submit(item).result()


def _weight(client: Client, logits: Array, _: Array) -> object:
    inputs = {"input": _INPUT, "target": _TARGET}
    return client.evaluate("mse_loss", inputs, sample_weight=logits)


def _put(client: Client, logits: Array, _: Array) -> object:
    return client.put(logits)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    "use",
    [_evaluate, _inline, _transposed, _in_chunks, _many, _in_stream, _weight, _put],
)
def test_an_array_whose_contents_are_gone_is_refused(
    child: Child, use: Callable[[Client, Array, Array], object], *, closed: bool
) -> None:
    """Whatever takes it, by whatever way, from an open region or a closed one."""
    with Client(child.address) as client:
        region = client.region(_BYTES)
        logits, out = region.array(_SHAPE), region.array(_SHAPE)
        logits[...] = _INPUT
        use(client, logits, out)
        if closed:
            region.close()
        _empty_all_regions(child)
        for _ in range(2):
            with pytest.raises(FailedPreconditionError, match="contents are gone") as caught:
                use(client, logits, out)
            assert caught.value.reason == "REGION_CONTENTS_GONE"
        # Others are as good as before.
        fine = client.evaluate("mse_loss", {"input": _INPUT, "target": _TARGET})
        np.testing.assert_allclose(fine.loss, np.mean((_INPUT - _TARGET) ** 2), rtol=1e-5)


def test_the_client_for_asyncio_refuses_it_too(child: Child) -> None:
    """With the same error."""

    async def run() -> None:
        async with AsyncClient(child.address) as client:
            region = await client.region(_BYTES)
            logits = region.array(_SHAPE)
            logits[...] = _INPUT
            _empty_all_regions(child)
            with pytest.raises(FailedPreconditionError, match="contents are gone"):
                await client.evaluate("mse_loss", {"input": logits, "target": _TARGET})
            with pytest.raises(FailedPreconditionError, match="contents are gone"):
                await client.put(logits)

    asyncio.run(run())


@pytest.mark.parametrize("nbytes", [1, 4095, 4096, 4097, 1 << 20])
def test_all_of_a_region_is_the_callers(child: Child, nbytes: int) -> None:
    """What the SDK keeps in it is no part of what was asked for."""
    with Client(child.address) as client, client.region(nbytes) as region:
        assert region.nbytes == -(-nbytes // 4096) * 4096
        whole = region.array(region.nbytes, np.uint8)
        assert not whole.any()
        whole[...] = 255
    assert (whole == 255).all()


@pytest.mark.parametrize("use", [_evaluate, _inline])
def test_closing_ends_a_call_and_nothing_else(
    tmp_path: Path, use: Callable[[Client, Array, Array], object]
) -> None:
    """The caller gets the error of any other call, and its arrays keep their contents."""
    with Child(tmp_path / "log") as child:
        client = Client(child.address)
        region = client.region(_BYTES)
        logits, out = region.array(_SHAPE), region.array(_SHAPE)
        logits[...] = _INPUT
        for _ in range(10):
            use(client, logits, out)
        reasons: list[str] = []  # an error would keep the arrays of its frames

        def call(logits: Array, out: Array) -> None:
            try:
                use(client, logits, out)
            except CancelledError as error:
                reasons.append(error.reason)

        with _stopped(child):
            calling = threading.Thread(target=call, args=(logits, out))
            calling.start()
            time.sleep(0.05)
            client.close()
            calling.join(60)
            del calling
        assert reasons == ["CLIENT_CLOSED"]
        del region
        gc.collect()
        time.sleep(0.1)
        np.testing.assert_array_equal(logits, _INPUT)
        assert _regions(child.process.pid)
        del logits, out
        gc.collect()
        assert _eventually(lambda: not _regions(child.process.pid))


def test_a_timeout_changes_nothing(child: Child) -> None:
    """Calls go on in the region and over the lease of which an answer was owed."""
    with Client(child.address) as client, client.region(_BYTES) as region:
        logits, out = region.array(_SHAPE), region.array(_SHAPE)
        logits[...] = _INPUT
        _evaluate(client, logits, out)
        inputs = {"input": logits, "target": _TARGET}
        for _ in range(5):
            with _stopped(child), pytest.raises(DeadlineExceededError):
                client.evaluate("mse_loss", inputs, gradients=["input"], timeout=0.02)
            found = client.evaluate("mse_loss", inputs, gradients=["input"])
            np.testing.assert_allclose(
                found.gradients["input"], 2 * (_INPUT - _TARGET) / _INPUT.size, rtol=1e-4, atol=1e-9
            )
            np.testing.assert_array_equal(logits, _INPUT)
        assert client.evaluate("mse_loss", inputs).transport == "region"


_ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

_FORKS = """
import os, sys, threading, time
import numpy as np
from losswire.client import Client

def regions():
    with open("/proc/self/maps") as maps:
        return sum("losswire-region" in line for line in maps)

client = Client(sys.argv[1])
large = np.ones((1000, 1000), np.float32)
inputs = {"input": large, "target": large}
logits = client.region(4096).array((2, 2))
logits[...] = 7
stop = threading.Event()

def call():
    while not stop.is_set():
        assert client.evaluate("mse_loss", inputs, gradients=["input"]).transport == "region"

callers = [threading.Thread(target=call, daemon=True) for _ in range(2)]
for each in callers:
    each.start()
while regions() < 2:  # its own, and one that evaluations go through
    time.sleep(0.001)
for _ in range(5):
    child = os.fork()
    if not child:
        sockets = [each for each in os.listdir("/proc/self/fd") if each.isdigit()]
        os._exit(0 if (logits == 7).all() and regions() == 1 else 10 + regions())
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status
stop.set()
for each in callers:
    each.join()
assert (logits == 7).all()
client.close()
"""


def test_a_child_keeps_nothing_but_its_arrays(child: Child) -> None:
    """It maps its parent's own regions, and none that evaluations are being copied through."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKS, child.address],
        env={
            **os.environ,
            "GRPC_ENABLE_FORK_SUPPORT": "0",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _calls(client: Client, region: Region, way: str) -> None:
    """Make calls of several ways, some of which fail or are given up."""
    logits, out = region.array(_SHAPE), region.array(_SHAPE)
    wrong = {"input": logits, "target": np.zeros((1, 2), np.float32)}
    plain = {"input": _INPUT, "target": _TARGET}
    for _ in range(12):
        # Not `pytest.raises`, which keeps the error.
        if way == "refused":
            with suppress(InvalidArgumentError):
                client.evaluate("mse_loss", wrong, gradients=["input"], out={"input": out})
        elif way == "refused when staged":
            with suppress(InvalidArgumentError):
                client.evaluate("mse_loss", {**plain, "target": _TARGET[:1]}, gradients=["input"])
        elif way == "given up":
            with suppress(DeadlineExceededError):
                client.evaluate("mse_loss", plain, gradients=["input"], timeout=0.0005)
        else:
            client.evaluate("mse_loss", plain, gradients=["input"])


@pytest.mark.parametrize("way", ["fine", "refused", "refused when staged", "given up"])
def test_memory_is_back_without_the_garbage_collector(child: Child, way: str) -> None:
    """A closed client leaves no cycle of references that would keep a region."""
    gc.collect()
    assert _eventually(lambda: not _regions(child.process.pid))
    gc.disable()
    try:
        with Client(child.address) as client, client.region(_BYTES) as region:
            _calls(client, region, way)
        del client, region
        # What was made for a call that was given up, and never fetched, stays for two seconds.
        assert _eventually(lambda: not _regions(child.process.pid))
    finally:
        gc.enable()


def test_an_error_that_is_kept_keeps_no_region(child: Child) -> None:
    """Its traceback has the frames of the call, and they have nothing of it any more."""
    errors: list[DeadlineExceededError] = []
    plain = {"input": _INPUT, "target": _TARGET}
    with Client(child.address) as client:
        for _ in range(6):
            client.evaluate("mse_loss", plain, gradients=["input"])
            with _stopped(child), pytest.raises(DeadlineExceededError) as caught:
                client.evaluate("mse_loss", plain, gradients=["input"], timeout=0.05)
            errors.append(caught.value)
            del caught
    gc.collect()
    assert len(errors) == 6
    assert _eventually(lambda: not _regions(child.process.pid))


# A socket that an exception left behind is closed with the last reference to it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_in_the_handshake_leaves_no_descriptor(child: Child) -> None:
    """Whatever instruction of Python it comes at."""
    is_armed = False

    def handle(*_: object) -> None:
        if is_armed:
            raise _Interruption

    before = signal.signal(signal.SIGALRM, handle)
    try:
        with Client(child.address) as client:
            client.region(4096).close()
            for number in range(150):
                with suppress(_Interruption):
                    is_armed = True
                    signal.setitimer(signal.ITIMER_REAL, 0.0002 + number * 0.00001)
                    client.region(4096).close()
                    is_armed = False
                # The alarm comes once: if it came in time, it does not come here.
                is_armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    gc.collect()
    assert not _regions(os.getpid())
    assert _eventually(lambda: not _regions(child.process.pid))


class _Interruption(BaseException):
    """What a signal's handler raises, as KeyboardInterrupt is."""
