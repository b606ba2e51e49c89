"""Evaluates one loss on a running server and compares the answer with the exact one.

The server is $LOSSWIRE_TARGET, or 127.0.0.1:50051. Exits with 1 when the answer is wrong.
"""

import math
import os
import sys

import numpy as np
import numpy.typing as npt

from losswire.client import Client

# Two rows; the target of each is the class with the lower logit.
LOGITS = np.array([[2.0, 1.0], [1.0, 2.0]], dtype=np.float32)
TARGET = np.array([1, 0])

LOSS = math.log(1 + math.e)
# Half of softmax minus one-hot: the mean is over two rows.
SHARE = 0.5 * math.e / (1 + math.e)
GRADIENT = np.array([[SHARE, -SHARE], [-SHARE, SHARE]])


def main() -> int:
    """Evaluate, print, compare; return the exit status."""
    target = os.environ.get("LOSSWIRE_TARGET", "127.0.0.1:50051")
    with Client(target, timeout=30) as client:
        result = client.evaluate(
            "cross_entropy", {"input": LOGITS, "target": TARGET}, gradients=["input"]
        )
    loss = float(result.loss)
    gradient = result.gradients["input"]
    print(answer(loss, gradient))
    if math.isclose(loss, LOSS, rel_tol=1e-6) and np.allclose(gradient, GRADIENT, rtol=1e-6):
        return 0
    print(f"WRONG, expected {answer(LOSS, GRADIENT)}")
    return 1


def answer(loss: float, gradient: npt.NDArray[np.floating]) -> str:
    """Write a loss and its gradient on one line."""
    rows = ", ".join("[" + ", ".join(f"{value:.4f}" for value in row) + "]" for row in gradient)
    return f"cross_entropy = {loss:.4f}, gradient = [{rows}]"


if __name__ == "__main__":
    sys.exit(main())
