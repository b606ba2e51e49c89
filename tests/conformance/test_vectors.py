"""The conformance vectors are up to date, can fail, and hold for a live server."""

from collections.abc import Iterator

import grpc
import pytest
from tools.make_conformance import FOLDER, build, present

from losswire.server.losses import builtin_registry
from losswire.v1 import loss_service_pb2, loss_service_pb2_grpc
from tests.conformance.cases import CASES
from tests.conformance.replay import Entry, entries, near, replay

ENTRIES = entries()


@pytest.fixture(scope="module")
def stub(server: str) -> Iterator[loss_service_pb2_grpc.LossServiceStub]:
    """A stub of the live server."""
    with grpc.insecure_channel(server) as channel:
        yield loss_service_pb2_grpc.LossServiceStub(channel)


def test_files_are_up_to_date() -> None:
    """The files are what `make conformance` would write now."""
    fresh = build()

    assert present() == [*sorted(fresh)[1:], "index.json"]
    for name, content in fresh.items():
        assert (FOLDER / name).read_bytes() == content, f"{name}: run make conformance"


def test_every_loss_has_a_vector() -> None:
    """No loss of the catalogue is left out."""
    covered = {given.loss for case in CASES for given in case.evaluations}

    assert {record.name for record in builtin_registry()} <= covered


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["name"] for entry in ENTRIES])
def test_vector(stub: loss_service_pb2_grpc.LossServiceStub, entry: Entry) -> None:
    """A live server answers as the vector says."""
    assert replay(stub, entry) == []


class _Liar:
    """A server that answers every call with the same wrong result."""

    def Evaluate(  # noqa: N802 (the method of the contract)
        self, request: loss_service_pb2.EvaluateRequest, timeout: float
    ) -> loss_service_pb2.EvaluateResponse:
        """Answer with nothing."""
        del request, timeout
        return loss_service_pb2.EvaluateResponse()

    def EvaluateMany(  # noqa: N802 (the method of the contract)
        self, request: loss_service_pb2.EvaluateManyRequest, timeout: float
    ) -> loss_service_pb2.EvaluateManyResponse:
        """Answer with nothing."""
        del request, timeout
        return loss_service_pb2.EvaluateManyResponse()


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["name"] for entry in ENTRIES])
def test_replay_can_fail(entry: Entry) -> None:
    """A wrong answer does not pass for any vector."""
    assert replay(_Liar(), entry) != []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("got", "wanted", "tolerance", "expected"),
    [
        (1.0, 1.0, {"ulps": 0}, True),
        (1.0, 1.0 + 2**-52, {"ulps": 0}, False),
        (float("nan"), float("nan"), {"ulps": 0}, True),
        (0.0, float("nan"), {"ulps": 4, "of": "FLOAT32", "scale": 1.0}, False),
        (float("inf"), float("inf"), {"ulps": 4, "of": "FLOAT32", "scale": 1.0}, True),
        (float("nan"), 1.0, {"ulps": 4, "of": "FLOAT32", "scale": 1.0}, False),
        (1.0 + 2**-22, 1.0, {"ulps": 2, "of": "FLOAT32", "scale": 0.5}, True),
        (1.0 + 3 * 2**-23, 1.0, {"ulps": 2, "of": "FLOAT32", "scale": 0.5}, False),
        (2.0**-22, 0.0, {"ulps": 2, "of": "FLOAT32", "scale": 1.0}, True),
    ],
)
def test_near(got: float, wanted: float, tolerance: dict[str, object], expected: bool) -> None:  # noqa: FBT001 (a table)
    """Nearness is what README.md says."""
    assert near(got, wanted, tolerance) is expected
