"""Forks: a child never changes what its parent computes, never crashes, and keeps nothing of it.

Each test runs a program of its own, because a test's process has threads that no child may have.
"""

import ast
import textwrap
from collections.abc import Iterator

import pytest

from tests.support.forking import run_forking
from tests.support.harness import Child
from tests.support.soak import record, tier
from tests.support.vitals import descriptors_named, wait_until


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server as by default."""
    with Child(tmp_path_factory.mktemp("forks") / "log", "--memory-budget-mib=512") as child:
        yield child


@pytest.fixture
def server(process: Child) -> str:
    """Its address."""
    return process.address


_ENDS = {
    "closes the client": "client.close()",
    "leaves the client's with": "client.__exit__(None, None, None)",
    "closes the region": "region.close()",
    "closes both": "region.close(); client.close()",
    "drops all": "drop()",
    "exits": "pass",
    "evaluates": """
try:
    client.evaluate("mse_loss", {"input": left, "target": right})
except RuntimeError:
    return 0
return 3
""",
}

_PARENT = """
client = Client(TARGET, timeout=100)

def drop():
    global client, region
    del client, region

def child():
{child}

wrong = 0
for number in range(TRIES):
    region = client.region(2 * INPUT.nbytes)
    left, right = region.array(INPUT.shape), region.array(INPUT.shape)
    left[...], right[...] = INPUT, OTHER
    inputs = {{"input": left, "target": right}}
    for _ in range(3):
        wrong += not near(client.evaluate("mse_loss", inputs).loss, EXPECTED)
    fork(child)
    for _ in range(2):
        found = client.evaluate("mse_loss", inputs)
        wrong += not near(found.loss, EXPECTED) or found.transport != "region"
    for _ in range(10):
        wrong += not near(client.evaluate("mse_loss", ITEM.inputs).loss, SMALL)
    wrong += not (np.array_equal(left, INPUT) and np.array_equal(right, OTHER))
    region.close()
print(f"wrong={{wrong}}")
print(f"endings={{endings}}")
"""


@pytest.mark.parametrize(
    ("end", "local"), [*((each, False) for each in _ENDS), ("closes both", True)]
)
def test_nothing_that_a_child_does_ends_its_parents_lease(
    server: str, end: str, *, local: bool
) -> None:
    """The parent's arrays keep their contents, its losses stay right, and the region is used."""
    tries = tier(short=3, soak=12)
    child = textwrap.indent(_ENDS[end].strip(), "    ")
    address = "local:?threads=1" if local else server
    found = run_forking(address, tries, _PARENT.format(child=child))
    record(f"wrong results after a child {end}", float(found["wrong"]), required="0")
    assert found == {"wrong": "0", "endings": str({0: tries})}


_OPEN = {
    "a stream": """
stream = client.stream().__enter__()
assert near(stream.submit(ITEM).result().loss, SMALL)
""",
    "a stream that threads use": """
stream = client.stream().__enter__()

def call():
    while not stop.is_set():
        assert near(stream.submit(ITEM).result().loss, SMALL)
""",
    "calls by gRPC": """
def call():
    while not stop.is_set():
        client.server_info()
""",
    "calls over leases": """
def call():
    while not stop.is_set():
        assert near(client.evaluate("mse_loss", ITEM.inputs).loss, SMALL)
""",
    "copies through shared memory": """
def call():
    inputs = {"input": INPUT, "target": OTHER}
    while not stop.is_set():
        assert near(client.evaluate("mse_loss", inputs).loss, EXPECTED)
""",
    "a summary": """
def call():
    def batches():
        while not stop.is_set():
            yield {"input": INPUT[:50], "target": OTHER[:50]}
    client.summarize("mse_loss", batches())
""",
}

_OPEN_AND_BUSY = {
    **_OPEN,
    "calls in chunks": """
def call():
    inputs = {"input": INPUT, "target": OTHER}
    while not stop.is_set():
        found = client.evaluate("mse_loss", inputs, progress=lambda _, __: None)
        assert near(found.loss, EXPECTED)
""",
    "calls of a client for asyncio": """
import asyncio
from losswire.client import AsyncClient

def call():
    async def main():
        async with AsyncClient(TARGET, timeout=100) as own:
            while not stop.is_set():
                calls = (own.evaluate("mse_loss", ITEM.inputs) for _ in range(4))
                assert all(near(each.loss, SMALL) for each in await asyncio.gather(*calls))
    asyncio.run(main())
""",
}
"""Also calls whose bytes are on their way at any moment."""

_OPENED = """
stop = threading.Event()
call = None
failures = []
client = Client(TARGET, timeout=100)
{opened}

def calling():
    try:
        call()
    except BaseException as error:
        failures.append(repr(error))

threads = [threading.Thread(target=calling) for _ in range(2 if call else 0)]
for each in threads:
    each.start()
time.sleep(0.3)
for _ in range(TRIES):
    fork(use)
stop.set()
for each in threads:
    each.join()
assert not failures, failures
assert near(client.evaluate("mse_loss", ITEM.inputs).loss, SMALL)
if "stream" in globals():
    assert near(stream.submit(ITEM).result().loss, SMALL)
    stream.__exit__(None, None, None)
client.close()
print(f"endings={{endings}}")
"""


@pytest.mark.parametrize("opened", _OPEN)
def test_children_of_a_busy_process_live(server: str, opened: str) -> None:
    """None is ended by a signal, whatever is open in the parent, whose calls all go on."""
    _check_that_children_live(server, f"beside {opened}", _OPEN[opened])


@pytest.mark.parametrize("opened", _OPEN_AND_BUSY)
def test_children_live_beside_any_call_without_grpcs_support_of_forks(
    server: str, opened: str
) -> None:
    """With it, gRPC's threads go on in children, and may end them while bytes are on their way."""
    what = f"beside {opened}, GRPC_ENABLE_FORK_SUPPORT=0"
    _check_that_children_live(server, what, _OPEN_AND_BUSY[opened], GRPC_ENABLE_FORK_SUPPORT="0")


def _check_that_children_live(server: str, what: str, opened: str, **settings: str) -> None:
    tries = tier(short=12, soak=100)
    found = run_forking(server, tries, _OPENED.format(opened=opened), **settings)
    died = {each: n for each, n in ast.literal_eval(found["endings"]).items() if each}
    record(f"children that died {what}", sum(died.values()), required="0")
    assert found == {"endings": str({0: tries})}


def test_children_beside_a_stream_for_asyncio_live(server: str) -> None:
    """A fork on the loop's own thread ends the stream's call, and what had no answer goes again."""
    tries = tier(short=12, soak=100)
    found = run_forking(
        server,
        tries,
        """
        import asyncio
        from losswire.client import AsyncClient

        async def main():
            async with AsyncClient(TARGET) as client, client.stream() as stream:
                for _ in range(TRIES):
                    futures = [await stream.submit(ITEM) for _ in range(3)]
                    fork(use)
                    for each in futures:
                        assert near((await each).loss, SMALL)

        asyncio.run(main())
        print(f"endings={endings}")
        """,
    )
    assert found == {"endings": str({0: tries})}


def test_a_child_has_a_client_of_its_own(server: str) -> None:
    """Beside its idle parent's, in every door; the parent goes on with its own."""
    found = run_forking(
        server,
        tier(short=3, soak=12),
        """
        def every(client):
            for _ in range(10):
                assert near(client.evaluate("mse_loss", ITEM.inputs).loss, SMALL)
            inputs = {"input": INPUT, "target": OTHER}
            assert near(client.evaluate("mse_loss", inputs).loss, EXPECTED)
            found = client.evaluate("mse_loss", inputs, progress=lambda _, __: None)
            assert near(found.loss, EXPECTED)
            with client.stream() as stream:
                assert near(stream.submit(ITEM).result().loss, SMALL)

        def child():
            with Client(TARGET) as own:
                every(own)

        with Client(TARGET) as client:
            for _ in range(TRIES):
                for _ in range(10):
                    client.evaluate("mse_loss", ITEM.inputs)
                fork(child)
        print(f"endings={sorted(endings)}")
        """,
    )
    assert found == {"endings": "[0]"}


def test_a_child_keeps_no_memory_of_the_server(process: Child) -> None:
    """When its parent closes the client, the server has everything back, though the child lives."""
    assert wait_until(lambda: not _held(process)) < 60
    found = run_forking(
        process.address,
        process.process.pid,
        """
        from tests.support.vitals import descriptors_named, wait_until

        client = Client(TARGET)
        for _ in range(10):
            client.evaluate("mse_loss", ITEM.inputs)
        inputs = {"input": INPUT, "target": OTHER}
        assert client.evaluate("mse_loss", inputs).transport == "region"
        held = descriptors_named(TRIES, "losswire-region")
        assert regions() > 0
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            signal.alarm(100)
            os.read(reading, 1)
            os._exit(regions())
        client.close()
        wait_until(lambda: not descriptors_named(TRIES, "losswire-region"))
        os.write(writing, b"!")
        print(f"mapped by the child={os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")
        print(f"held before={held > 0}")
        """,
    )
    assert found == {"mapped by the child": "0", "held before": "True"}


def _held(process: Child) -> int:
    return descriptors_named(process.process.pid, "losswire-region")
