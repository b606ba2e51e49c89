"""Callers who all evaluate large arrays at once, in a process of their own."""

import json
import sys
import threading
import time
from dataclasses import asdict, dataclass, field

import numpy as np

from losswire.client import Client, LosswireError

_MIB = 1 << 20
_PATIENCE = 60.0
"""The deadline of a call: for hangs only."""


@dataclass
class Flooded:
    """What the callers saw."""

    done: int = 0
    rate: float = 0.0
    """Calls a second."""
    wrong: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    """Calls that failed although they were tried again, by the kind of error."""


def flood(address: str, clients: int, mebibytes: float, seconds: float) -> Flooded:
    """Evaluate from many threads, each with a client, for some seconds; shares no memory."""
    found, lock = Flooded(), threading.Lock()
    rows = int(mebibytes * _MIB) // 2 // 4 // 256
    batch = np.arange(rows * 256, dtype=np.float32).reshape(rows, 256) % 7
    inputs = {"input": batch, "target": batch + 2}
    ready = threading.Barrier(clients + 1)

    def call() -> None:
        with Client(address) as client:
            client.evaluate("mse_loss", {"input": [0.0], "target": [0.0]}, timeout=_PATIENCE)
            ready.wait()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                try:
                    result = client.evaluate("mse_loss", inputs, timeout=_PATIENCE)
                except LosswireError as error:
                    with lock:
                        name = type(error).__name__
                        found.errors[name] = found.errors.get(name, 0) + 1
                else:
                    with lock:
                        found.done += 1
                        found.wrong += abs(float(result.loss) - 4) > 1e-6

    threads = [threading.Thread(target=call) for _ in range(clients)]
    for each in threads:
        each.start()
    ready.wait()
    began = time.monotonic()
    for each in threads:
        each.join()
    found.rate = found.done / (time.monotonic() - began)
    return found


def _main() -> None:
    address, clients, mebibytes, seconds = sys.argv[1:]
    found = flood(address, int(clients), float(mebibytes), float(seconds))
    sys.stdout.write(json.dumps(asdict(found)))


if __name__ == "__main__":
    _main()
