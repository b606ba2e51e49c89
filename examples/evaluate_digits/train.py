"""Trains two models of the UCI digits in numpy, and writes what each says of every digit.

The digits are divided into five folds; each is predicted by a model that was trained on the other
four, so that every digit is a test digit once. Losses and gradients come from Losswire, in this
process (`local:`) or from a server (`--server HOST:PORT`).

Writes predictions.parquet: id, class, logits_small (16 hidden units), logits_large (64).
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits
from tqdm import tqdm

from losswire.client import Client

Array = npt.NDArray[Any]

FOLDER = Path(__file__).parent
SEED = 0
FOLDS = 5
EPOCHS = 20
BATCH = 64
CLASSES = 10
LEARNING_RATE = 0.05
MOMENTUM = 0.9
HIDDEN = {"small": 16, "large": 64}


def _draw(rng: np.random.Generator, rows: int, columns: int) -> Array:
    return rng.normal(0, np.sqrt(2 / rows), (rows, columns)).astype(np.float32)


class Network:
    """One hidden layer with ReLU."""

    def __init__(self, rng: np.random.Generator, pixels: int, hidden: int) -> None:
        """Draw the first parameters."""
        self._parameters = [
            _draw(rng, pixels, hidden),
            np.zeros(hidden, np.float32),
            _draw(rng, hidden, CLASSES),
            np.zeros(CLASSES, np.float32),
        ]
        self._velocities = [np.zeros_like(each) for each in self._parameters]

    def logits(self, images: Array) -> tuple[Array, Array]:
        """Return the hidden layer and the logits, a row for each image."""
        weights_in, bias_in, weights_out, bias_out = self._parameters
        hidden = np.maximum(images @ weights_in + bias_in, 0)
        return hidden, hidden @ weights_out + bias_out

    def step(self, images: Array, hidden: Array, gradient: Array) -> None:
        """Propagate the gradient of the logits back, and take one step with momentum."""
        below = (gradient @ self._parameters[2].T) * (hidden > 0)
        gradients = [images.T @ below, below.sum(0), hidden.T @ gradient, gradient.sum(0)]
        for position, each in enumerate(gradients):
            velocity = MOMENTUM * self._velocities[position] - LEARNING_RATE * each
            self._velocities[position] = velocity
            self._parameters[position] = self._parameters[position] + velocity


def train(client: Client, images: Array, classes: Array, hidden: int, seed: int) -> Network:
    """Return a network that was trained on some digits."""
    rng = np.random.default_rng(seed)
    network = Network(rng, images.shape[1], hidden)
    for _ in range(EPOCHS):
        order = rng.permutation(len(classes))
        for rows in np.array_split(order, len(order) // BATCH):
            layer, logits = network.logits(images[rows])
            inputs = {"input": logits, "target": classes[rows]}
            result = client.evaluate("cross_entropy", inputs, gradients=["input"])
            network.step(images[rows], layer, result.gradients["input"])
    return network


def main() -> None:
    """Train both models on all folds and write their predictions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="local:", help="default: in this process")
    arguments = parser.parse_args()
    data = load_digits()
    images = (data.data / 16).astype(np.float32)
    classes = data.target.astype(np.int64)
    fold = np.random.default_rng(SEED).permutation(len(classes)) % FOLDS
    logits = {name: np.empty((len(classes), CLASSES), np.float32) for name in HIDDEN}
    work = [(name, each) for name in HIDDEN for each in range(FOLDS)]
    with Client(arguments.server) as client:
        for name, each in tqdm(work, desc="training", unit="model"):
            held = fold == each
            network = train(client, images[~held], classes[~held], HIDDEN[name], SEED + each)
            logits[name][held] = network.logits(images[held])[1]
    columns: dict[str, Any] = {"id": np.arange(len(classes)), "class": classes}
    for name, array in logits.items():
        values = pa.array(array.reshape(-1))
        columns[f"logits_{name}"] = pa.FixedSizeListArray.from_arrays(values, CLASSES)
        accuracy = np.mean(array.argmax(axis=1) == classes)
        print(f"{name:6}{HIDDEN[name]:4} hidden units, {accuracy:.1%} of the digits right")
    path = FOLDER / "predictions.parquet"
    pq.write_table(pa.table(columns), path)
    print(f"wrote {path.name}: {len(classes)} digits")


if __name__ == "__main__":
    main()
