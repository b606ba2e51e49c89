"""Plain torch for linear_cross_entropy: `projection_here ROWS FEATURES CLASSES DTYPE`.

Each line that comes asks for one computation; the answer is a line of JSON.
"""

import json
import sys
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_SEED = 20240607
_BLOCK_ROWS = 4096
_THREADS = 2


def arrays(rows: int, features: int, classes: int, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
    """Make features, head and target classes; the head without a copy in float32."""
    torch.manual_seed(_SEED)
    own: torch.dtype = getattr(torch, dtype)
    head = torch.empty(classes, features, dtype=own)
    for start in range(0, classes, _BLOCK_ROWS):
        block = head[start : start + _BLOCK_ROWS]
        block.copy_(torch.randn(block.shape) / features**0.5)
    return torch.randn(rows, features).to(own), head, torch.randint(0, classes, (rows,))


def main(arguments: Sequence[str]) -> int:
    """Compute the loss and both gradients whenever a line comes."""
    torch.set_num_threads(_THREADS)
    rows, features, classes = map(int, arguments[:3])
    hidden, head, target = arrays(rows, features, classes, arguments[3])
    hidden.requires_grad_()
    head.requires_grad_()
    print("ready", flush=True)
    for _ in sys.stdin:
        hidden.grad = head.grad = None
        start = time.perf_counter()
        loss = F.linear_cross_entropy(hidden, head, target)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own lacks types
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "loss": loss.item()}), flush=True)
        del loss
    return 0
