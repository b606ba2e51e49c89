"""What is wrong over gRPC is wrong over HTTP: the same code, reason, text and violations."""

import grpc
import pytest

from losswire.v1 import status_pb2
from tests.support.http_door import CannotSayError, Door, as_json, as_parts
from tests.support.mistakes import Mistake
from tests.support.mistakes_in_form import IN_FORM
from tests.support.mistakes_in_values import IN_VALUES
from tests.support.requests import by_call

TABLE = (*IN_VALUES, *IN_FORM)


def _sayable(wrong: Mistake) -> bool:
    try:
        as_json(wrong.item)
    except CannotSayError:
        return False
    return True


SAYABLE = [each for each in TABLE if _sayable(each)]


def _codes() -> dict[str, int]:
    return {each.name: each.value[0] for each in grpc.StatusCode}


def _status_of(problem: dict[str, object]) -> status_pb2.Status:
    """Write a problem as gRPC writes the status of an item."""
    violations = problem["violations"]
    assert isinstance(violations, list)
    return status_pb2.Status(
        code=_codes()[str(problem["code"])],
        message=str(problem["detail"]),
        reason=str(problem["reason"]),
        violations=[status_pb2.FieldViolation(**each) for each in violations],
    )


def test_most_mistakes_can_be_made_over_http() -> None:
    """JSON can say nearly all of them; the others are numbers of enums, regions and no data."""
    assert len(SAYABLE) > len(TABLE) * 0.85


@pytest.mark.parametrize("wrong", SAYABLE, ids=[each.what for each in SAYABLE])
def test_a_mistake_is_the_same_problem(door: Door, wrong: Mistake) -> None:
    """A mistake is refused with the very words that gRPC uses, as JSON and as parts."""
    expected = by_call(door.stub, wrong.item).error
    response = door.evaluate(as_json(wrong.item))
    assert _status_of(response.json()) == expected
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == response.json()["request_id"]
    try:
        parts = as_parts(wrong.item)
    except CannotSayError:
        return
    assert _status_of(door.client.post("/v1/evaluate", files=parts).json()) == expected
