"""Evaluates a loss from a process that has no torch: `client_without_torch.py HOST:PORT`.

Run by the wheel tests in an environment with nothing but the SDK. Prints `ok`, and nothing else:
older versions of gRPC print errors of their own when several streams are open.
"""

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from losswire.client import Client, Evaluation

_STREAMS: Final = 8


def main(address: str) -> None:
    """Evaluate cross_entropy with its gradient and compare both with the exact values."""
    with Client(address, timeout=60) as client:
        result = client.evaluate(
            "cross_entropy",
            {"input": [[2.0, 1.0], [1.0, 2.0]], "target": [1, 0]},
            gradients=["input"],
        )
    probability = 1 / (1 + np.exp(-1.0))
    gradient = np.array([[probability, -probability], [-probability, probability]]) / 2
    np.testing.assert_allclose(result.loss, 1.0 + np.log1p(np.exp(-1.0)), rtol=1e-6)  # 1.3133
    np.testing.assert_allclose(result.gradients["input"], gradient, rtol=1e-6)
    if "torch" in sys.modules or importlib.util.find_spec("torch") is not None:
        raise SystemExit("torch can be imported here: this shows nothing")
    try:
        Client("local:")
    except ModuleNotFoundError as error:
        if "pip install losswire-server" not in str(error):
            raise
    else:
        raise SystemExit("local: was accepted without the service")
    with ThreadPoolExecutor(_STREAMS) as threads:
        list(threads.map(_stream, [address] * _STREAMS))
    sys.stdout.write("ok\n")


def _stream(address: str) -> None:
    """Evaluate on a stream beside others."""
    evaluation = Evaluation("mse_loss", {"input": [1.0, 2.0], "target": [0.0, 0.0]})
    with Client(address, timeout=60) as client, client.stream() as stream:
        for _ in range(20):
            for each in [stream.submit(evaluation) for _ in range(20)]:
                np.testing.assert_equal(each.result().loss, np.float32(2.5))


if __name__ == "__main__":
    main(*sys.argv[1:])
