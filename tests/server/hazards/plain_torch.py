"""Unsafe inputs in plain torch: `python plain_torch.py NAME` shows one hazard.

Each demonstration prints numbers, one a line, unless it takes the process with it.
"""

import sys
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

Demonstration = Callable[[], Iterable[float]]

_FRAMES, _CLASSES = 3, 4
_REPETITIONS = 200


def _ctc(log_probs: Tensor, label: int) -> float:
    """Align one label."""
    loss = F.ctc_loss(
        log_probs, torch.tensor([label]), torch.tensor(_FRAMES), torch.tensor(1), reduction="sum"
    )
    return float(loss)


def _among_neighbours(label: int) -> Iterator[float]:
    """Evaluate the same log-probabilities twice, with other numbers around them in memory."""
    for neighbour in (0.0, -3.0):
        storage = torch.full((4096,), neighbour)
        log_probs = storage[2048 : 2048 + _FRAMES * _CLASSES].view(_FRAMES, _CLASSES)
        log_probs.copy_(torch.full((_FRAMES, _CLASSES), 1 / _CLASSES).log())
        yield _ctc(log_probs, label)


def ctc_label_above() -> Iterable[float]:
    """Read behind the log-probabilities."""
    return _among_neighbours(_CLASSES + 5)


def ctc_label_below() -> Iterable[float]:
    """Read in front of the log-probabilities."""
    return _among_neighbours(-3)


def ctc_label_far() -> Iterable[float]:
    """Read where the process has no memory."""
    yield _ctc(torch.zeros(_FRAMES, _CLASSES), 10**9)


def ctc_blank_label() -> Iterable[float]:
    """Use the number of the blank as a label."""
    yield _ctc(torch.full((_FRAMES, _CLASSES), 1 / _CLASSES).log(), 0)


def _of_nothing(loss: Callable[[], Tensor]) -> Iterator[float]:
    """Evaluate an empty batch again and again, on a heap that has been used."""
    for _ in range(_REPETITIONS):
        used = [torch.randn(1000) for _ in range(8)]
        del used
        yield float(loss())


def multi_margin_of_nothing() -> Iterable[float]:
    """Average no rows."""
    target = torch.zeros(0, dtype=torch.int64)
    return _of_nothing(lambda: F.multi_margin_loss(torch.zeros(0, 3), target))


def multilabel_margin_of_nothing() -> Iterable[float]:
    """Average no rows."""
    target = torch.zeros((0, 3), dtype=torch.int64)
    return _of_nothing(lambda: F.multilabel_margin_loss(torch.zeros(0, 3), target))


DEMONSTRATIONS: dict[str, Demonstration] = {
    each.__name__: each
    for each in (
        ctc_label_above,
        ctc_label_below,
        ctc_label_far,
        ctc_blank_label,
        multi_margin_of_nothing,
        multilabel_margin_of_nothing,
    )
}

if __name__ == "__main__":
    for number in DEMONSTRATIONS[sys.argv[1]]():
        sys.stdout.write(f"{number!r}\n")
