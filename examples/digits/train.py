"""Trains a digit classifier in numpy alone, with losses and gradients from a Losswire server.

The network lives in this process, which never imports torch. Each step sends logits and classes to
the server and receives the cross-entropy and its gradient; the rest of the backward pass is a few
lines of numpy. At several points the gradient is compared with one computed here in float64.

Run it by `make demo`. The exit status is 1 when the result is not good enough.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from tqdm import tqdm

from losswire.client import Client

Array = npt.NDArray[Any]

SEED = 0
EPOCHS = 30
BATCH = 64
PIXELS = 64
HIDDEN = 64
CLASSES = 10
LEARNING_RATE = 0.05
MOMENTUM = 0.9
TEST_SHARE = 5  # one image in five
COMPARE_EVERY = 50  # steps
WANTED_ACCURACY = 0.95
ALLOWED_DIFFERENCE = 1e-6


@dataclass(frozen=True, slots=True)
class Digits:
    """Images of handwritten digits, 8 x 8 pixels in [0, 1], and the digits they show."""

    train_images: Array
    train_classes: Array
    test_images: Array
    test_classes: Array


def load() -> Digits:
    """Load the UCI handwritten digits and split them, the same way every time."""
    data = load_digits()
    order = np.random.default_rng(SEED).permutation(len(data.target))
    images = (data.data[order] / 16).astype(np.float32)
    classes = data.target[order].astype(np.int64)
    tests = len(classes) // TEST_SHARE
    return Digits(images[tests:], classes[tests:], images[:tests], classes[:tests])


class Network:
    """One hidden layer with ReLU, trained by gradient descent with momentum."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw the first parameters."""
        self._parameters = [
            _draw(rng, PIXELS, HIDDEN),
            np.zeros(HIDDEN, np.float32),
            _draw(rng, HIDDEN, CLASSES),
            np.zeros(CLASSES, np.float32),
        ]
        self._velocities = [np.zeros_like(each) for each in self._parameters]

    def forward(self, images: Array) -> tuple[Array, Array]:
        """Return the hidden layer and the logits, one row for each image."""
        weights_in, bias_in, weights_out, bias_out = self._parameters
        hidden = np.maximum(images @ weights_in + bias_in, 0)
        return hidden, hidden @ weights_out + bias_out

    def step(self, images: Array, hidden: Array, gradient: Array) -> None:
        """Propagate the gradient of the logits back to the parameters, and take one step."""
        below = (gradient @ self._parameters[2].T) * (hidden > 0)
        gradients = [images.T @ below, below.sum(0), hidden.T @ gradient, gradient.sum(0)]
        for i, each in enumerate(gradients):
            self._velocities[i] = MOMENTUM * self._velocities[i] - LEARNING_RATE * each
            self._parameters[i] = self._parameters[i] + self._velocities[i]


def _draw(rng: np.random.Generator, rows: int, columns: int) -> Array:
    return rng.normal(0, np.sqrt(2 / rows), (rows, columns)).astype(np.float32)


def local_gradient(logits: Array, classes: Array) -> Array:
    """Return the gradient of the mean cross-entropy in float64: (softmax - one-hot) / rows."""
    exact = logits.astype(np.float64)
    powers = np.exp(exact - exact.max(axis=1, keepdims=True))
    gradient: Array = powers / powers.sum(axis=1, keepdims=True) - np.eye(CLASSES)[classes]
    return gradient / len(classes)


@dataclass(slots=True)
class Comparison:
    """How remote gradients compare with local ones."""

    points: int = 0
    """The number of compared gradients."""
    difference: float = 0.0
    """The largest difference between two numbers."""

    def add(self, remote: Array, local: Array) -> None:
        """Compare two gradients."""
        self.points += 1
        # np.maximum keeps a NaN, max() would not.
        self.difference = float(np.maximum(self.difference, np.abs(remote - local).max()))


def train(client: Client, digits: Digits, network: Network, epochs: int) -> Comparison:
    """Train, comparing some of the gradients on the way."""
    rng = np.random.default_rng(SEED)
    batches = len(digits.train_classes) // BATCH
    comparison = Comparison()
    with tqdm(total=epochs * batches, desc="training", unit="step") as progress:
        for _ in range(epochs):
            shuffled = rng.permutation(len(digits.train_classes))
            for rows in np.array_split(shuffled[: batches * BATCH], batches):
                images, classes = digits.train_images[rows], digits.train_classes[rows]
                hidden, logits = network.forward(images)
                result = client.evaluate(
                    "cross_entropy", {"input": logits, "target": classes}, gradients=["input"]
                )
                gradient = result.gradients["input"]
                if progress.n % COMPARE_EVERY == 0:
                    comparison.add(gradient, local_gradient(logits, classes))
                network.step(images, hidden, gradient)
                progress.set_postfix(loss=f"{float(result.loss):.4f}", refresh=False)
                progress.update()
    return comparison


@dataclass(frozen=True, slots=True)
class Score:
    """How good a network is on the test images."""

    accuracy: float
    loss: float


def score(client: Client, digits: Digits, network: Network) -> Score:
    """Score a network on images that it has never seen; the loss comes from the server."""
    _, logits = network.forward(digits.test_images)
    result = client.evaluate("cross_entropy", {"input": logits, "target": digits.test_classes})
    right = logits.argmax(axis=1) == digits.test_classes
    return Score(float(right.mean()), float(result.loss))


@contextmanager
def running_server() -> Iterator[str]:
    """Run a server on a free port for as long as the block lasts; yields its HOST:PORT."""
    command = [sys.executable, "-m", "losswire.server", "serve"]
    options = ["--listen", "127.0.0.1:0", "--log-level", "warning"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 (fixed arguments)
        try:
            line = server.stdout.readline() if server.stdout else ""
            greeting, _, address = line.strip().rpartition(" ")
            if greeting != "listening on":
                sys.exit("the server did not start; it says why above")
            yield address
        finally:
            server.terminate()
            try:
                server.wait(timeout=15)
            except subprocess.TimeoutExpired:
                server.kill()


def main() -> int:
    """Run the demo; return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped too
    start = time.monotonic()
    digits = load()
    print(
        f"data           {len(digits.train_classes)} digits to train on, "
        f"{len(digits.test_classes)} to test with"
    )
    with running_server() as address, Client(address) as client:
        info = client.server_info()
        print(f"server         {address}, torch {info.torch_version} on {info.device}")
        network = Network(np.random.default_rng(SEED))
        before = score(client, digits, network)
        comparison = train(client, digits, network, EPOCHS)
        after = score(client, digits, network)
    has_torch = "torch" in sys.modules
    print(f"trainer        numpy {np.__version__}, torch imported: {'yes' if has_torch else 'no'}")
    print(
        f"test accuracy  {before.accuracy:.1%} before, {after.accuracy:.1%} after "
        f"(wanted: {WANTED_ACCURACY:.0%})"
    )
    print(f"test loss      {before.loss:.4f} before, {after.loss:.4f} after")
    print(
        f"gradient       at most {comparison.difference:.1e} from the local one, at "
        f"{comparison.points} points (allowed: {ALLOWED_DIFFERENCE:.0e})"
    )
    print(f"time           {time.monotonic() - start:.1f} s")
    accurate = after.accuracy >= WANTED_ACCURACY
    exact = comparison.difference <= ALLOWED_DIFFERENCE
    good = accurate and exact and not has_torch
    print("passed" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
