"""The examples in other languages build, train to Python's losses and replay the vectors.

Where a toolchain is not installed the test is skipped; with LOSSWIRE_REQUIRE_LANGUAGES=1, as in
.ci/run, it fails.
"""

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.rpc import status_pb2

from losswire.server.app import App
from losswire.server.compute.native import binding
from losswire.server.pipeline import evaluator as line_module
from losswire.server.pipeline.decode import Request, decode
from losswire.server.settings import Settings
from losswire.v1 import evaluation_pb2
from tests.conformance.cases import CASES
from tests.languages.toolchains import TOOLCHAINS, Toolchain
from tests.languages.training import POINTS, STEPS, Trained, train

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "conformance"
THIRD_PARTY = ROOT / "examples" / "third_party" / "googleapis"

BUILD_SECONDS = 3000

LOCAL_CALLS = 2000

# Two machines that add up in another order may come to logits that differ in the last bit of a
# float32; over all steps that stays within a few of those bits.
RELATIVE = 8 * 2.0**-23

pytestmark = pytest.mark.timeout(BUILD_SECONDS)


@pytest.fixture(scope="module")
def expected(server: str) -> Trained:
    """The result of the same training in Python."""
    return train(server)


@pytest.fixture(params=TOOLCHAINS, ids=[each.name for each in TOOLCHAINS])
def built(request: pytest.FixtureRequest) -> Toolchain:
    """A language whose example is built."""
    toolchain: Toolchain = request.param
    if missing := toolchain.missing():
        reason = f"toolchain {toolchain.name} not installed: apt-get install {' '.join(missing)}"
        if os.environ.get("LOSSWIRE_REQUIRE_LANGUAGES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    _run("make", "--no-print-directory", f"language-{toolchain.name}", folder=ROOT)
    return toolchain


def test_trains_and_replays(built: Toolchain, server: str, expected: Trained) -> None:
    """The program reaches Python's losses, and all vectors and local calls agree."""
    folder = ROOT / "examples" / built.name
    output = _run(*built.run, server, str(VECTORS), folder=folder)

    losses = {int(step): float(loss) for step, loss in re.findall(r"step (\d+) loss (\S+)", output)}
    losses[STEPS - 1] = float(_only(r"final loss (\S+)", output))
    assert sorted(losses) == [0, 50, 100, 150, 200, 250, STEPS - 1]
    assert losses == pytest.approx({step: expected.losses[step] for step in losses}, rel=RELATIVE)
    assert losses[STEPS - 1] < losses[0] / 4
    assert _only(r"accuracy (.*)", output) == f"{expected.right} of {POINTS}"
    assert _only(r"(.*) vectors agree", output) == f"{len(CASES)} of {len(CASES)}"
    assert _only(r"(.*) local calls agree", output) == f"{LOCAL_CALLS} of {LOCAL_CALLS}"


def test_reads_answers_of_known_forms(built: Toolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the first answers of a training are written without protobuf, and still read.

    The server shares no memory, and the program says so.
    """
    if not binding.AVAILABLE:
        pytest.skip("there are no native rows here")
    decoded: list[str] = []

    def spy(message: evaluation_pb2.Evaluation, *rest: Any, **named: Any) -> Request:  # noqa: ANN401 (its own)
        decoded.append(message.loss)
        return decode(message, *rest, **named)

    monkeypatch.setattr(line_module, "decode", spy)

    async def replay() -> str:
        budget = 256 << 20
        app = App(
            Settings(listen="127.0.0.1:0", device="cpu", threads=1, memory_budget_bytes=budget)
        )
        address = await app.start()
        try:
            command = (*built.run, address, str(VECTORS))
            return await asyncio.to_thread(_run, *command, folder=ROOT / "examples" / built.name)
        finally:
            await app.stop()

    output = asyncio.run(replay())
    assert _only(r"(.*) vectors agree", output) == f"{len(CASES)} of {len(CASES)}"
    assert _only(r"no local calls: (.*)", output) == "the server shares no memory"
    assert STEPS > 2 * decoded.count("cross_entropy") > 0


def test_replay_tells_a_wrong_answer(built: Toolchain, server: str, tmp_path: Path) -> None:
    """The program ends with status 1 when answers are not what the vectors say."""
    shutil.copytree(VECTORS / "vectors", tmp_path / "vectors")
    shutil.copy(VECTORS / "index.json", tmp_path)
    swap = [
        # Numbers, a shape, and the details of an error.
        ("mse_loss_exact", "smooth_l1_loss_beta"),
        ("mse_loss_empty", "mse_loss_scalar"),
        ("error_shape", "error_data_type"),
    ]
    for one, other in swap:
        _swap(*(tmp_path / "vectors" / f"{name}.response.binpb" for name in (one, other)))

    done = subprocess.run(
        [*built.run, server, tmp_path],
        cwd=ROOT / "examples" / built.name,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    wrong = {line.partition(":")[0] for line in done.stderr.splitlines()}
    assert wrong == {name for pair in swap for name in pair}
    count = len(CASES)
    assert f"{count - len(wrong)} of {count} vectors agree" in done.stdout


def test_vendored_protos_are_the_published_ones() -> None:
    """The copies of google.rpc are those of the googleapis-common-protos package."""
    published = Path(status_pb2.__file__).parents[2]
    for name in ("google/rpc/status.proto", "google/rpc/error_details.proto"):
        assert (THIRD_PARTY / name).read_text() == (published / name).read_text()


def test_lock_file_names_no_registry() -> None:
    """Packages are pinned by version and hash, and fetched from the user's own registry."""
    lock = (ROOT / "examples" / "node" / "package-lock.json").read_text()

    assert '"resolved"' not in lock
    assert '"integrity": "sha512-' in lock


def _swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _only(pattern: str, text: str) -> str:
    found = re.findall(pattern, text)
    assert len(found) == 1, f"{pattern} is not once in:\n{text}"
    return str(found[0])


def _run(*command: str, folder: Path) -> str:
    """Run a program and return its output; a failure shows all of it."""
    # make's own variables would bind a make in a test to the one that may have started the tests.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
