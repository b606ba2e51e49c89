"""Asks a server at 127.0.0.1:50051 for a loss and its gradient."""

import numpy as np

from losswire.client import Client

logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]], np.float32)
classes = np.array([0, 0])

with Client("127.0.0.1:50051") as client:
    result = client.evaluate(
        "cross_entropy",
        {"input": logits, "target": classes},
        {"label_smoothing": 0.1},
        gradients=["input"],
    )
print(f"loss {result.loss:.4f}, of {result.count} rows")
print(result.gradients["input"].round(4))
