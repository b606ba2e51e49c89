"""The training of examples/languages.md in numpy, for comparison with the other languages."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from losswire.client import Client

POINTS, HIDDEN, CLASSES, STEPS, RATE = 256, 16, 3, 300, 0.5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The result of a training."""

    losses: dict[int, float]
    """The loss of every step."""
    right: int
    """How many points the model puts into their class."""


class _Generator:
    """A linear congruential generator of numbers in [0, 1), the same in every language."""

    def __init__(self) -> None:
        self.state = 1

    def draw(self, *shape: int) -> Floats:
        """Draw the next numbers, in the order of the array's memory."""
        drawn = np.empty(shape)
        for place in np.ndindex(shape):
            self.state = (1664525 * self.state + 1013904223) % 2**32
            drawn[place] = self.state / 2**32
        return drawn


def train(target: str) -> Trained:
    """Train with losses and gradients of the server at an address."""
    generator = _Generator()
    points = 2 * generator.draw(POINTS, 2) - 1
    square = (points**2).sum(axis=1)
    classes = np.where(square < 0.25, 0, np.where(square < 0.75, 1, 2))
    w1 = 2 * generator.draw(2, HIDDEN) - 1
    b1 = generator.draw(HIDDEN) - 0.5
    w2 = generator.draw(HIDDEN, CLASSES) - 0.5
    b2 = np.zeros(CLASSES)

    losses = {}
    with Client(target) as client:
        for step in range(STEPS):
            hidden = np.maximum(points @ w1 + b1, 0)
            logits = hidden @ w2 + b2
            result = client.evaluate(
                "cross_entropy",
                {"input": logits.astype(np.float32), "target": classes},
                gradients=["input"],
            )
            losses[step] = float(result.loss)
            outer = np.asarray(result.gradients["input"], np.float64)
            inner = outer @ w2.T * (hidden > 0)
            w2 = w2 - RATE * hidden.T @ outer
            b2 = b2 - RATE * outer.sum(axis=0)
            w1 = w1 - RATE * points.T @ inner
            b1 = b1 - RATE * inner.sum(axis=0)
    logits = np.maximum(points @ w1 + b1, 0) @ w2 + b2
    return Trained(losses=losses, right=int((logits.argmax(axis=1) == classes).sum()))
