"""`losswire.client.torch`: a remote loss is one of torch's modules to everything around it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losswire.client import Client, InvalidArgumentError, NotFoundError
from losswire.client.torch import RemoteLoss
from tests.client.adapters.conftest import Counting


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 5))


def _train(criterion: Callable[[Tensor, Tensor], Tensor], steps: int) -> list[Tensor]:
    """Train a small classifier; gives its parameters."""
    model = _model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    torch.manual_seed(2)
    rows, classes = torch.randn(64, 8), torch.randint(5, (64,))
    for step in range(steps):
        batch = slice(step % 4 * 16, step % 4 * 16 + 16)
        optimizer.zero_grad()
        criterion(model(rows[batch]), classes[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return [each.detach() for each in model.parameters()]


def test_training_ends_where_it_does_with_a_local_loss(client: Client) -> None:
    """After 40 steps of Adam the parameters are those of nn.CrossEntropyLoss."""
    settings = {"label_smoothing": 0.1, "weight": torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])}
    local = _train(nn.CrossEntropyLoss(**settings), 40)  # type: ignore[arg-type]
    criterion = RemoteLoss(client, "cross_entropy", **settings)  # type: ignore[arg-type]
    remote = _train(criterion, 40)
    for found, expected in zip(remote, local, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    way = [(a - b).abs().max().item() for a, b in zip(local, _train(criterion, 0), strict=True)]
    assert max(way) > 0.1


@pytest.mark.parametrize("scale", [1.0, 65536.0, 3.7, 1 / 3])
def test_training_is_the_same_bit_for_bit_by_autograd(client: Client, scale: float) -> None:
    """With engine="autograd" and one thread, not one bit of a parameter differs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    here = nn.CrossEntropyLoss(label_smoothing=0.1)
    there = RemoteLoss(client, "cross_entropy", engine="autograd", label_smoothing=0.1)
    try:
        local = _train(lambda *each: here(*each) * scale, 10)
        remote = _train(lambda *each: there(*each) * scale, 10)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(remote, local, strict=True))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(client: Client, reduction: str) -> None:
    """Torch's own check of a Function in float64, for every kind of reduction."""
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    target = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    criterion = RemoteLoss(client, "cross_entropy", reduction=reduction)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(criterion, (logits, target))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_and_scales(client: Client, dtype: torch.dtype, reduction: str) -> None:
    """A loss that is scaled afterwards gives the gradient, in the input's dtype, rounded once."""
    logits = torch.randn(6, 4).to(dtype).requires_grad_()
    again = logits.detach().clone().requires_grad_()
    classes = torch.tensor([0, 1, 2, 3, 0, 1])
    scale = torch.linspace(-3, 3, 6) * 65536 if reduction == "none" else torch.tensor(65536.0)
    loss = RemoteLoss(client, "cross_entropy", reduction=reduction)(logits, classes)  # type: ignore[arg-type]
    wide = again.float() if dtype in (torch.float16, torch.bfloat16) else again
    expected = F.cross_entropy(wide, classes, reduction=reduction)
    torch.testing.assert_close(loss, expected)
    (loss * scale).sum().backward()
    (expected * scale).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert again.grad is not None
    assert logits.grad.dtype is dtype
    torch.testing.assert_close(logits.grad, again.grad)
    assert logits.grad.isfinite().all() == again.grad.isfinite().all()


def test_small_gradients_survive_half_precision(client: Client) -> None:
    """Loss scaling works: a float16 gradient is scaled before it is rounded, not after."""
    logits = torch.zeros(4096, 2, dtype=torch.float16, requires_grad=True)
    classes = torch.zeros(4096, dtype=torch.int64)
    sample_weight = torch.full((4096,), 1e-4)
    loss = RemoteLoss(client, "cross_entropy", reduction="mean")(
        logits, classes, sample_weight=sample_weight, normalizer=4096.0
    )
    (loss * 2**16).backward()
    assert logits.grad is not None
    # Unscaled it is 1.2e-8, less than half of float16's least number.
    expected = 0.5 * 1e-4 / 4096 * 2**16
    torch.testing.assert_close(
        logits.grad[:, 1].float(), torch.full((4096,), expected), rtol=1e-3, atol=0
    )


ASKED = (
    ((True, False), "mean", True, [("input",)]),
    ((True, True), "mean", True, [("input", "target")]),
    ((False, False), "mean", True, [()]),
    ((True, True), "mean", False, [()]),
    ((True, False), "none", True, [(), ("input",)]),
    ((True, False), "none", False, [()]),
)


@pytest.mark.parametrize(("requires", "reduction", "enabled", "asked"), ASKED)
def test_only_what_is_needed_is_asked_for(
    counting: Counting,
    requires: tuple[bool, bool],
    reduction: str,
    enabled: bool,  # noqa: FBT001 (a column of the table)
    asked: list[tuple[str, ...]],
) -> None:
    """Gradients are asked for where they are required, and never within no_grad."""
    x, y = (torch.randn(5, requires_grad=each) for each in requires)
    with torch.set_grad_enabled(enabled):
        loss = RemoteLoss(counting, "mse_loss", reduction=reduction)(x, y)  # type: ignore[arg-type]
    assert loss.requires_grad == (enabled and any(requires))
    if loss.requires_grad:
        loss.sum().backward()
    assert counting.asked == asked


def test_inputs_by_name_and_fixed(client: Client) -> None:
    """Inputs may come by place, by name, or with the module, whose buffers they become."""
    logits, classes, weight = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.rand(3)
    expected = F.cross_entropy(logits, classes, weight, ignore_index=2)
    fixed = RemoteLoss(client, "cross_entropy", weight=weight, ignore_index=2)
    free = RemoteLoss(client, "cross_entropy", ignore_index=2)
    torch.testing.assert_close(fixed(logits, classes), expected)
    torch.testing.assert_close(free(target=classes, weight=weight, input=logits), expected)
    torch.testing.assert_close(free(logits, classes.numpy(), weight=weight.tolist()), expected)
    torch.testing.assert_close(fixed(logits, target=classes), expected)
    assert [name for name, _ in fixed.named_buffers()] == ["input_weight"]
    assert fixed.double()(logits.double(), classes).dtype is torch.float64
    assert repr(fixed) == "RemoteLoss(cross_entropy, ignore_index=2, weight=...)"


def test_settings_that_are_none_are_left_out(client: Client) -> None:
    """As torch's own modules take `weight=None`."""
    x, y = torch.randn(3), torch.randn(3)
    loss = RemoteLoss(client, "mse_loss", weight=None, reduction="sum")
    torch.testing.assert_close(loss(x, y), F.mse_loss(x, y, reduction="sum"))


def test_weights_of_samples_and_normalizer(client: Client) -> None:
    """They are arguments of the call, because they belong to a batch."""
    x, y = torch.tensor([1.0, 5.0]), torch.tensor([0.0, 0.0])
    criterion = RemoteLoss(client, "mse_loss")
    assert criterion(x, y, sample_weight=torch.tensor([1.0, 0.0])).item() == 1.0
    assert criterion(x, y, sample_weight=[1.0, 1.0], normalizer=13.0).item() == 2.0
    with pytest.raises(ValueError, match="sample_weight: there is no gradient"):
        criterion(x, y, sample_weight=torch.ones(2, requires_grad=True))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("differentiate", ["backward", "grad"])
def test_second_derivatives_are_refused(client: Client, reduction: str, differentiate: str) -> None:
    """A gradient penalty raises instead of leaving the loss out, with any other term beside it."""
    x = torch.randn(4, requires_grad=True)
    loss = RemoteLoss(client, "mse_loss", reduction=reduction)(x, torch.zeros(4))  # type: ignore[arg-type]
    [gradient] = torch.autograd.grad(loss.sum() + (x**3).sum(), x, create_graph=True)
    penalty = (gradient**2).sum()
    ways = {"grad": lambda: torch.autograd.grad(penalty, x), "backward": penalty.backward}
    with pytest.raises(RuntimeError, match="no second derivatives"):
        ways[differentiate]()


def test_a_graph_may_be_used_twice(client: Client) -> None:
    """retain_graph and accumulation work as with any module."""
    x = torch.randn(3, requires_grad=True)
    loss = RemoteLoss(client, "mse_loss", reduction="sum")(x, torch.zeros(3))
    loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(x.grad, 4 * x.detach())


def test_strides_and_views(client: Client) -> None:
    """Inputs need not be contiguous, and gradients have the inputs' shape."""
    base = torch.randn(3, 2, 4, requires_grad=True)
    criterion = RemoteLoss(client, "cross_entropy")
    classes = torch.randint(3, (4, 2))
    criterion(base.permute(2, 0, 1), classes).backward()
    again = base.detach().clone().requires_grad_()
    F.cross_entropy(again.permute(2, 0, 1), classes).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(base.grad, again.grad)


def test_activations_are_modules_too(client: Client) -> None:
    """An activation has no reduction, and a gradient all the same."""
    x = torch.randn(2, 3, requires_grad=True)
    y = RemoteLoss(client, "softmax", dim=1)(x)
    torch.testing.assert_close(y, x.softmax(1))
    y[:, 0].sum().backward()
    again = x.detach().clone().requires_grad_()
    again.softmax(1)[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(x.grad, again.grad)


def test_low_precision_may_be_asked_for(client: Client) -> None:
    """compute_dtype gives torch's own dtype of the loss."""
    x = torch.ones(2, dtype=torch.bfloat16)
    loss = RemoteLoss(client, "mse_loss", compute_dtype=torch.bfloat16)(x, torch.zeros_like(x))
    assert (loss.dtype, loss.item()) == (torch.bfloat16, 1.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_devices(client: Client) -> None:
    """Loss and gradient come back to the device of the input."""
    x = torch.randn(4, 3, device="cuda", requires_grad=True)
    criterion = RemoteLoss(client, "cross_entropy", weight=torch.rand(3)).cuda()
    loss = criterion(x, torch.tensor([0, 1, 2, 0], device="cuda"))
    loss.backward()
    assert x.grad is not None
    assert loss.device == x.grad.device == x.device


def test_mistakes(client: Client) -> None:
    """Wrong calls raise before anything is computed, with names."""
    x = torch.zeros(2)
    criterion = RemoteLoss(client, "mse_loss", weight=torch.ones(2))
    with pytest.raises(TypeError, match="mse_loss takes at most 2 inputs by place, got 3"):
        criterion(x, x, x)
    with pytest.raises(TypeError, match="mse_loss got input twice"):
        criterion(x, input=x)
    with pytest.raises(TypeError, match="mse_loss got weight twice"):
        criterion(x, x, weight=x)
    with pytest.raises(NotFoundError, match='there is no loss "mse"'):
        RemoteLoss(client, "mse")(x, x)
    with pytest.raises(InvalidArgumentError) as caught:
        RemoteLoss(client, "mse_loss", beta=1.0)(x, np.zeros(3))
    assert {each.field for each in caught.value.violations} == {
        'inputs["target"].shape',
        'options["beta"]',
    }


@pytest.mark.parametrize("mask", [[True, False], [1, 0], torch.tensor([True, False])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_masks_and_lists_are_weights(
    client: Client, mask: list[int] | Tensor, dtype: torch.dtype
) -> None:
    """A mask removes rows, and a list of class weights has the type of the input."""
    x = torch.tensor([[0.0, 1.0], [torch.nan, 0.0]], dtype=dtype, requires_grad=True)
    y, weight = torch.tensor([1, 0]), torch.tensor([1, 2], dtype=dtype)
    expected = F.cross_entropy(x[:1].float(), y[:1], weight.float())
    fixed = RemoteLoss(client, "cross_entropy", weight=[1, 2])
    assert repr(fixed) == "RemoteLoss(cross_entropy, weight=...)"
    given = RemoteLoss(client, "cross_entropy")
    for loss in (
        fixed(x, y, sample_weight=mask),
        given(x, y, weight=[1.0, 2.0], sample_weight=mask),
        given(x, y, weight=torch.tensor([1, 2]), sample_weight=mask),
    ):
        torch.testing.assert_close(loss.detach().float(), expected.detach(), rtol=1e-6, atol=0)
        [gradient] = torch.autograd.grad(loss, x)
        assert gradient[1].tolist() == [0.0, 0.0]
