"""The loss in CONTRIBUTING.md is complete: it is served and evaluated unchanged."""

from collections.abc import Iterator

import numpy as np
import pytest

from losswire.client import Client, InvalidArgumentError
from tests.docs.pages import blocks
from tests.support.process import running_server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Serve the loss of the page, as the page says."""
    folder = tmp_path_factory.mktemp("losses")
    [example] = blocks("CONTRIBUTING.md", "python")
    (folder / "my_losses.py").write_text(example.text)
    environment = {"PYTHONPATH": str(folder)}
    with (
        running_server("--losses", "my_losses", environment=environment) as address,
        Client(address) as client,
    ):
        yield client


def test_the_loss_gives_its_formula_and_gradient(client: Client) -> None:
    """Values are log(cosh((x - y) / s)), the gradient is tanh((x - y) / s) / s."""
    x, y, scale = np.array([-3.0, 0.0, 0.5, 40.0]), np.array([1.0, 0.0, 0.25, -10.0]), 2.0
    result = client.evaluate(
        "log_cosh_loss",
        {"input": x, "target": y},
        {"scale": scale},
        reduction="sum",
        gradients=["input", "target"],
    )
    error = (x - y) / scale
    np.testing.assert_allclose(result.loss, np.log(np.cosh(error)).sum(), rtol=1e-14)
    np.testing.assert_allclose(
        result.gradients["input"], np.tanh(error) / scale, rtol=1e-14, atol=1e-16
    )
    np.testing.assert_array_equal(result.gradients["target"], -result.gradients["input"])


def test_the_loss_is_listed_and_validated_by_its_record(client: Client) -> None:
    """ListLosses knows it, and a wrong shape and option are refused with their paths."""
    [info] = [each for each in client.losses() if each.name == "log_cosh_loss"]
    assert [each.name for each in info.inputs] == ["input", "target"]
    assert [(each.name, each.default, each.range) for each in info.options] == [
        ("scale", 1.0, "(0, inf]")
    ]
    with pytest.raises(InvalidArgumentError) as caught:
        client.evaluate(
            "log_cosh_loss", {"input": np.zeros(3), "target": np.zeros(2)}, {"scale": 0.0}
        )
    assert {each.field for each in caught.value.violations} == {
        'inputs["target"].shape',
        'options["scale"]',
    }
