"""The demo learns from remote gradients, compares them, and fails when it should."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from examples.digits import train as demo

from losswire.client import Client
from tests.docs.pages import ROOT


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    """Connect to the server."""
    with Client(server) as client:
        yield client


def test_a_few_epochs_on_real_digits_learn(client: Client) -> None:
    """Two epochs bring a network from guessing to 80 %, with gradients equal to local ones."""
    digits = demo.load()
    network = demo.Network(np.random.default_rng(demo.SEED))
    before = demo.score(client, digits, network)
    comparison = demo.train(client, digits, network, epochs=2)
    after = demo.score(client, digits, network)
    assert before.accuracy < 0.3
    assert after.accuracy > 0.8
    assert after.loss < before.loss / 2
    assert comparison.points == 1
    assert 0 <= comparison.difference <= demo.ALLOWED_DIFFERENCE


def test_the_split_is_fixed_and_complete() -> None:
    """All 1797 images are used once, and loading again gives the same split."""
    first, second = demo.load(), demo.load()
    assert len(first.train_classes) + len(first.test_classes) == 1797
    np.testing.assert_array_equal(first.test_images, second.test_images)
    assert {*first.test_classes} == set(range(demo.CLASSES))


def test_the_local_gradient_is_the_slope_of_the_loss() -> None:
    """The closed form agrees with finite differences of the cross-entropy in float64."""
    rng = np.random.default_rng(1)
    logits, classes = rng.normal(size=(4, demo.CLASSES)), np.array([3, 0, 9, 3])

    def loss(changed: demo.Array) -> float:
        powers = np.exp(changed)
        return float(-np.log((powers / powers.sum(1, keepdims=True))[range(4), classes]).mean())

    slopes = np.empty_like(logits)
    for where in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[where] = 1e-6
        slopes[where] = (loss(logits + step) - loss(logits - step)) / 2e-6
    np.testing.assert_allclose(demo.local_gradient(logits, classes), slopes, atol=1e-8)


def test_a_wrong_gradient_is_noticed() -> None:
    """The comparison keeps the largest difference, and a NaN does not hide in it."""
    comparison = demo.Comparison()
    comparison.add(np.zeros(3), np.array([0.0, -0.5, 0.25]))
    comparison.add(np.zeros(3), np.zeros(3))
    assert (comparison.points, comparison.difference) == (2, 0.5)
    comparison.add(np.array([np.nan]), np.zeros(1))
    assert not comparison.difference <= demo.ALLOWED_DIFFERENCE


def test_the_demo_passes() -> None:
    """The whole demo, as `make demo` runs it, ends with status 0 in a process without torch."""
    ran = subprocess.run(
        [sys.executable, ROOT / "examples" / "digits" / "train.py"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "passed"), ran.stderr
    assert "torch imported: no" in ran.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_an_interrupted_demo_stops_its_server(number: signal.Signals) -> None:
    """After a signal in mid-training no process of the demo is left."""
    with subprocess.Popen(
        [sys.executable, ROOT / "examples" / "digits" / "train.py"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.read(1)  # the progress bar: training has begun
        process.send_signal(number)
        process.stderr.read()
        assert process.wait(timeout=60) == 128 + number
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
