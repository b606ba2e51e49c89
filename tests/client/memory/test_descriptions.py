"""The descriptions of server and losses that a large evaluation needs: when they are asked for."""

import numpy as np

from losswire.client import Evaluation
from losswire.client._calls.operations import (
    EVALUATE,
    GET_SERVER_INFO,
    LIST_LOSSES,
    Method,
    Operation,
)
from losswire.client._calls.session import Session, open_session
from losswire.client._memory.evaluate import evaluate
from losswire.client._memory.regions import Regions
from losswire.client._messages.catalogue import read_server_info
from losswire.v1 import loss_service_pb2

_INFO = read_server_info(loss_service_pb2.GetServerInfoResponse())
_ARRAY = np.zeros(1 << 18, np.float32)


def _calls(session: Session) -> list[Method]:
    """Return the methods that a large evaluation calls, up to Evaluate."""
    inputs = {"input": _ARRAY, "target": _ARRAY}
    steps = evaluate(Regions(session), Evaluation("mse_loss", inputs), None, None, None)
    found = []
    step = next(steps)
    while True:
        assert isinstance(step, Operation)
        found.append(step.method)
        if step.method is EVALUATE:
            return found
        step = steps.send(_INFO if step.method is GET_SERVER_INFO else [])


def test_they_are_asked_for_once_for_each_start_of_the_server() -> None:
    """After a sign that the server was started again, both are asked for again."""
    session = open_session("losswire.invalid:1", 60.0, None, None)
    assert _calls(session) == [GET_SERVER_INFO, LIST_LOSSES, EVALUATE]
    assert _calls(session) == [EVALUATE]
    session.forget_server()
    assert _calls(session) == [GET_SERVER_INFO, LIST_LOSSES, EVALUATE]


def test_one_that_is_known_is_not_asked_for() -> None:
    """Shared memory needs the server's description, too: one request serves both uses."""
    session = open_session("losswire.invalid:1", 60.0, None, None)
    session.server = _INFO
    assert _calls(session) == [LIST_LOSSES, EVALUATE]
