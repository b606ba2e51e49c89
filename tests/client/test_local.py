"""The target `local:`: the service in the caller's own process."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from losswire.client import (
    ArrayInput,
    AsyncClient,
    Client,
    Evaluation,
    EvaluationResult,
    InvalidArgumentError,
)
from losswire.wire import OptionScalar
from tests.client.conftest import Call

TARGET = "local:?threads=1&device=cpu"
"""As the fixture `server` computes."""

_DRAW = np.random.default_rng(13)
_SCORES = _DRAW.standard_normal((32, 10), dtype=np.float32)
_LARGE = _DRAW.standard_normal((200_000, 10), dtype=np.float32)
_CLASSES = np.arange(200_000) % 10

CASES: Mapping[str, tuple[str, dict[str, ArrayInput], dict[str, OptionScalar]]] = {
    "cross_entropy": ("cross_entropy", {"input": _SCORES, "target": _CLASSES[:32]}, {}),
    "smoothed": (
        "cross_entropy",
        {"input": _SCORES, "target": _CLASSES[:32]},
        {"label_smoothing": 0.1},
    ),
    "large": ("cross_entropy", {"input": _LARGE, "target": _CLASSES}, {}),
    "mse_loss": ("mse_loss", {"input": _SCORES, "target": _SCORES[::-1].copy()}, {}),
    "huber_loss": ("huber_loss", {"input": _SCORES, "target": 2 * _SCORES}, {"delta": 0.5}),
}


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for temporary files whose path is short enough for that of a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program with every warning an error; it must end by itself."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, **environment},
    )


def _bits(result: EvaluationResult) -> tuple[bytes, bytes, float, int]:
    return result.loss.tobytes(), result.gradients["input"].tobytes(), result.sum, result.count


@pytest.mark.parametrize(("loss", "inputs", "options"), CASES.values(), ids=CASES)
def test_the_bits_are_those_of_a_server(
    server: str,
    call: Call,
    loss: str,
    inputs: dict[str, ArrayInput],
    options: dict[str, OptionScalar],
) -> None:
    """Loss, gradient and receipt are the same, whichever client asks."""
    results = [
        call(target, "evaluate", loss, inputs, options, gradients=["input"])
        for target in (server, TARGET)
    ]
    remote, local = [each for each in results if isinstance(each, EvaluationResult)]
    assert _bits(remote) == _bits(local)
    assert remote.receipt == local.receipt


def test_errors_are_those_of_a_server(server: str, call: Call) -> None:
    """Inputs are validated by the same records, and violations have the same paths."""
    wrong = {"input": _SCORES, "target": np.full(32, 10)}
    texts = []
    for target in (server, TARGET):
        with pytest.raises(InvalidArgumentError) as caught:
            call(target, "evaluate", "cross_entropy", wrong)
        texts.append([str(each) for each in caught.value.violations])
    assert texts[0] == texts[1] != []


def test_clients_share_one_service(call: Call) -> None:
    """All clients of a process, blocking or not, ask one worker; other options make another."""
    with Client(TARGET) as first, Client("local:?device=cpu&threads=1") as second:
        one, two = first.server_info(), second.server_info()
        tensor = first.put(np.arange(3.0))
        assert second.stat(tensor)
    three = call(TARGET, "server_info")
    assert one == two == three
    assert (one.device, one.threads) == ("cpu", 1)
    with Client("local:?threads=2") as other:
        assert other.server_info().threads == 2
        assert other.server_info().worker_id != one.worker_id


def test_streams_and_regions_work() -> None:
    """What a server on this machine has, this one has, too."""
    item = Evaluation("mse_loss", {"input": [3.0], "target": [1.0]})
    with Client(TARGET) as client:
        with client.stream() as stream:
            assert [float(stream.submit(item).result().loss) for _ in range(3)] == [4.0] * 3
        with client.region(4096) as region:
            inputs = {name: region.array(2) for name in ("input", "target")}
            inputs["input"][...] = 1.0, 2.0
            inputs["target"][...] = 0.0
            result = client.evaluate("mse_loss", inputs)
            # "local" is the lease of the region: without gRPC.
            assert (float(result.loss), result.transport) == (2.5, "local")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("local:8080", "local: or local:?threads=N&device=D"),
        ("local:?threads", "NAME=VALUE"),
        ("local:?threads=0", "threads: expected a whole number greater than 0, got '0'"),
        ("local:?threads=two", "threads: expected a whole number greater than 0, got 'two'"),
        ("local:?threads=1&threads=2", "given twice"),
        ("local:?device=tpu", "device: expected one of auto, cpu, cuda, got 'tpu'"),
        ("local:?port=1", "no option 'port'; it has device and threads"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_wrong_options_are_refused(
    kind: type[Client] | type[AsyncClient], target: str, text: str
) -> None:
    """At once, and with the words that say what is expected."""
    with pytest.raises(ValueError, match="target: ") as caught:
        kind(target)
    assert text in str(caught.value)


def test_without_the_service_the_error_says_what_to_install() -> None:
    """No distribution announces the service, as where only the SDK is installed."""
    done = _run("""
        import importlib.metadata
        importlib.metadata.entry_points = lambda **_: ()
        from losswire.client import Client
        Client("local:")
    """)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
    assert "pip install losswire-server" in done.stderr


_EVALUATE = """
        import numpy as np
        from losswire.client import Client
        def loss():
            with Client("local:?threads=1") as client:
                inputs = {"input": [3.0], "target": [1.0]}
                return float(client.evaluate("mse_loss", inputs).loss)
"""


def test_a_start_that_was_interrupted_goes_on() -> None:
    """Ctrl-C while the service starts: the next call waits for the same start."""
    done = _run("""
        import _thread, threading
        from losswire.client import Client

        client = Client("local:")
        threading.Timer(0.3, _thread.interrupt_main).start()
        try:
            client.server_info()
        except KeyboardInterrupt:
            print("interrupted")
        print(client.server_info().device)
        """)
    assert (done.stdout, done.stderr) == ("interrupted\ncpu\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_start_their_own(tmp_path: Path, method: str) -> None:
    """Whether they were forked before the first call or spawned after it."""
    path = tmp_path / "child.py"
    path.write_text(
        textwrap.dedent(_EVALUATE)
        + textwrap.dedent(f"""
        import multiprocessing
        if __name__ == "__main__":
            if {method == "spawn"}:
                print(loss())
            with multiprocessing.get_context({method!r}).Pool(2) as pool:
                print(pool.apply(loss), pool.apply(loss))
            print(loss())
        """),
        "utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.stderr == ""
    assert set(done.stdout.split()) == {"4.0"}
    assert done.returncode == 0


def test_a_child_forked_from_a_running_service_is_told() -> None:
    """Threads do not survive a fork: an error, instead of a call that hangs."""
    done = _run(
        _EVALUATE
        + """
        import os
        loss()
        child = os.fork()
        if child == 0:
            try:
                loss()
            except RuntimeError as error:
                os._exit(7 if "spawn" in str(error) else 1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), loss())
        """,
        # Otherwise gRPC writes that it skips its handlers of the fork.
        GRPC_ENABLE_FORK_SUPPORT="0",
    )
    assert (done.stdout, done.stderr, done.returncode) == ("7 4.0\n", "", 0)


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "region = client.region(4096)",
        # Through shared memory, which is freed a moment later.
        "client.evaluate('mse_loss', dict.fromkeys(('input', 'target'), np.zeros(10**6)))",
        "import threading; threading.Thread(target=loss).start()",
        "threading.Thread(target=endless, daemon=True).start(); time.sleep(0.5)",
    ],
    ids=["idle", "open region", "large evaluation", "call under way", "summary under way"],
)
def test_a_process_ends_by_itself(short: Path, ending: str) -> None:
    """Without a word, without a wait, and without a file left, though nothing was closed."""
    done = _run(
        _EVALUATE
        + f"""
        import contextlib, itertools, threading, time
        def endless():
            batch = {{"input": np.zeros(10**6), "target": np.zeros(10**6)}}
            with contextlib.suppress(Exception):
                client.summarize("mse_loss", itertools.repeat(batch))
        client = Client("local:?threads=1")
        print(client.evaluate("mse_loss", {{"input": [3.0], "target": [1.0]}}).loss)
        {ending}
        """,
        TMPDIR=str(short),
    )
    assert (done.stdout, done.stderr, done.returncode) == ("4.0\n", "", 0)
    assert list(short.iterdir()) == []


def test_what_a_killed_process_left_is_removed(short: Path) -> None:
    """By the next one that starts; the folder of one that runs stays."""
    code = (
        _EVALUATE
        + """
        import os, signal, sys
        loss()
        print(len(os.listdir(os.environ["TMPDIR"])), flush=True)
        if sys.flags.optimize:
            os.kill(os.getpid(), signal.SIGKILL)
    """
    )
    outcomes = [_run(code, TMPDIR=str(short), PYTHONOPTIMIZE=each) for each in ("1", "1", "")]
    assert [each.returncode for each in outcomes] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert [each.stdout for each in outcomes] == ["1\n"] * 3
    assert list(short.iterdir()) == []
