"""The self-test: one evaluation with a known answer, before the server accepts calls.

It shows that the device computes, and triggers the work that torch does only once.
"""

import math
from typing import Final

import numpy as np

from losswire.server.pipeline.evaluator import Evaluator
from losswire.v1 import evaluation_pb2
from losswire.wire import decode_tensor, encode_tensor

_LOSS: Final = math.log(1 + math.e)
_GRADIENT: Final = 0.5 / (1 + math.exp(-1))
_TOLERANCE: Final = 1e-6


class SelfTestError(Exception):
    """The device computes a wrong result."""


async def run_selftest(evaluator: Evaluator) -> None:
    """Check cross-entropy of [[2, 1], [1, 2]] with targets [1, 0]; SelfTestError if it is wrong."""
    evaluation = evaluation_pb2.Evaluation(
        loss="cross_entropy",
        inputs={
            "input": encode_tensor(np.array([[2, 1], [1, 2]], np.float32)),
            "target": encode_tensor(np.array([1, 0])),
        },
        gradients_for=["input"],
    )
    encoded = await evaluator.evaluate(evaluation, math.inf)
    result = encoded.whole()
    loss = float(decode_tensor(result.loss))
    gradient = decode_tensor(result.gradients["input"])
    expected = _GRADIENT * np.array([[1, -1], [-1, 1]])
    if abs(loss - _LOSS) > _TOLERANCE or np.abs(gradient - expected).max() > _TOLERANCE:
        message = f"cross_entropy gave {loss} and {gradient.tolist()}"
        raise SelfTestError(message)
