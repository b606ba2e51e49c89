"""torch's bits depend on the number of its threads: a server with two has those of two."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.support.caller import Ask, Caller, calling
from tests.support.exact import same_bits
from tests.support.harness import Child


@pytest.fixture(scope="module")
def with_two_threads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """A connection to a server of two threads."""
    with (
        Child(tmp_path_factory.mktemp("threads") / "log", "--threads", "2") as child,
        calling(child.address) as caller,
    ):
        yield caller


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(4, 16), (5, 40), (33, 7), (200, 100)])
def test_small_evaluations_by_autograd_have_the_bits_of_as_many_threads(
    with_two_threads: Caller, shape: tuple[int, int]
) -> None:
    """A softmax along the first axis is computed in other parts by two threads."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal(shape).astype(np.float32)
    ask = Ask(
        loss="softmax",
        inputs={"input": logits},
        options={"dim": 0},
        gradients_for=("input",),
        grad_output=rng.standard_normal(shape).astype(np.float32),
    )
    found = with_two_threads.evaluate(ask)
    leaf = torch.tensor(logits, requires_grad=True)
    expected = F.softmax(leaf, 0)
    expected.backward(torch.tensor(ask.grad_output))  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert same_bits(found.loss, expected.detach().numpy())
    assert same_bits(found.gradients["input"], leaf.grad.numpy())
