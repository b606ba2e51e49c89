"""Plain torch in the caller's own process, the way a user writes it."""

from collections.abc import Sequence

import numpy.typing as npt
import torch
import torch.nn.functional as F
from numpy import float32

from benchmarks import data
from benchmarks.worker import Spec, Work, serve


class Torch(Work):
    """Cross-entropy and its gradient: numpy array in hand, numpy gradient in hand."""

    def __init__(self, spec: Spec) -> None:
        """Make the arrays."""
        self._spec = spec
        self._logits = data.logits(spec.rows, spec.columns)
        self._target = data.classes(spec.rows, spec.columns)

    def call(self) -> tuple[float, npt.NDArray[float32]]:
        """Evaluate."""
        logits = torch.from_numpy(self._logits).requires_grad_()
        loss = F.cross_entropy(logits, torch.from_numpy(self._target))
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own lacks types
        if logits.grad is None:
            raise RuntimeError("torch gave no gradient")
        return loss.item(), logits.grad.numpy()

    def check(self) -> str:
        """Compare with float64."""
        loss, gradient = self.call()
        return data.check(self._spec, loss, gradient)


def main(_arguments: Sequence[str]) -> int:
    """Answer the benchmark's commands."""
    return serve(Torch)
