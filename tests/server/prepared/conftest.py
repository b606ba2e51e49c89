"""The spy of the tests in this folder."""

from typing import Any

import pytest

from losswire.server.pipeline import evaluator as evaluator_module
from losswire.server.pipeline.decode import Request, decode
from losswire.v1 import evaluation_pb2

Evaluation = evaluation_pb2.Evaluation


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The losses of what took the whole pipeline."""
    seen: list[str] = []

    def spy(
        message: Evaluation,
        *rest: Any,  # noqa: ANN401 (as decode takes them)
        **named: Any,  # noqa: ANN401 (as decode takes them)
    ) -> Request:
        seen.append(message.loss)
        return decode(message, *rest, **named)

    monkeypatch.setattr(evaluator_module, "decode", spy)
    return seen
