"""`losswire.client.jax`: a remote loss is a function of JAX, for jit, grad and vmap."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losswire.client import Client, NotFoundError
from losswire.client.jax import remote_loss
from tests.client.adapters.conftest import Counting

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.standard_normal((6, 4)), jnp.float32)
CLASSES = jnp.array([0, 1, 2, 3, 0, 1])
GRADIENT = (jax.nn.softmax(LOGITS) - jax.nn.one_hot(CLASSES, 4)) / 6
"""Of the mean of cross-entropy: softmax minus one-hot, over the number of rows."""
VALUES = jax.nn.logsumexp(LOGITS, axis=1) - LOGITS[jnp.arange(6), CLASSES]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_the_gradient_is_the_closed_form(client: Client, *, compiled: bool) -> None:
    """Loss and gradient of cross-entropy, eager and compiled."""
    both = jax.value_and_grad(remote_loss(client, "cross_entropy"))
    loss, gradient = (jax.jit(both) if compiled else both)(LOGITS, CLASSES)
    np.testing.assert_allclose(loss, VALUES.mean(), rtol=1e-6)
    np.testing.assert_allclose(gradient, GRADIENT, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_unreduced_losses(client: Client, *, compiled: bool) -> None:
    """Values keep their shape, and what is made of them afterwards enters the gradient."""
    loss = remote_loss(client, "cross_entropy", reduction="none")
    weights = jnp.arange(6.0)

    def objective(logits: jax.Array) -> jax.Array:
        return (loss(logits, CLASSES) * weights).sum()

    gradient = jax.grad(objective)
    np.testing.assert_allclose(loss(LOGITS, CLASSES), VALUES, rtol=1e-5)
    np.testing.assert_allclose(
        (jax.jit(gradient) if compiled else gradient)(LOGITS),
        GRADIENT * 6 * weights[:, None],
        rtol=1e-5,
        atol=1e-8,
    )


def test_training_under_jit_is_that_of_a_local_loss(client: Client) -> None:
    """Twenty steps of a compiled update give the parameters of the same update in JAX alone."""
    rows = jnp.asarray(RNG.standard_normal((32, 8)), jnp.float32)
    classes = jnp.asarray(RNG.integers(0, 4, 32))
    start = jnp.asarray(RNG.standard_normal((8, 4)), jnp.float32)
    remote = remote_loss(client, "cross_entropy")

    def local(logits: jax.Array, target: jax.Array) -> jax.Array:
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), target[:, None], 1)
        return -picked.mean()

    ends = []
    for loss in (remote, local):
        update = jax.jit(
            lambda weights, loss=loss: (
                weights - 0.5 * jax.grad(lambda each: loss(rows @ each, classes))(weights)
            )
        )
        weights = start
        for _ in range(20):
            weights = update(weights)
        ends.append(weights)
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-4, atol=1e-6)
    assert float(jnp.abs(ends[1] - start).max()) > 0.5


def test_vmap_calls_for_each_element(counting: Counting) -> None:
    """A mapped loss and gradient are those of the elements, one call each."""
    loss = remote_loss(counting, "cross_entropy")
    logits, classes = jnp.stack([LOGITS, 2 * LOGITS]), jnp.stack([CLASSES, CLASSES[::-1]])
    found = jax.vmap(loss)(logits, classes)
    assert counting.asked == [(), ()]
    for each, *batch in zip(found, logits, classes, strict=True):
        np.testing.assert_allclose(each, loss(*batch))
    gradients = jax.vmap(jax.grad(loss), in_axes=(0, None))(logits, CLASSES)
    np.testing.assert_allclose(gradients[0], GRADIENT, rtol=1e-5, atol=1e-8)


ASKED = (
    ((0,), "mean", [("input",)]),
    ((1,), "mean", [("target",)]),
    ((0, 1), "mean", [("input", "target")]),
    ((0,), "none", [(), ("input",)]),
)


@pytest.mark.parametrize(("places", "reduction", "asked"), ASKED)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_only_what_is_needed_is_asked_for(
    counting: Counting,
    places: tuple[int, ...],
    reduction: str,
    asked: list[tuple[str, ...]],
    *,
    compiled: bool,
) -> None:
    """Gradients come for the arguments that are differentiated, and for no others."""
    loss = remote_loss(counting, "mse_loss", reduction=reduction)  # type: ignore[arg-type]
    both = jax.value_and_grad(lambda x, y: loss(x, y).sum(), argnums=places)
    if compiled:
        both = jax.jit(both)
    x, y = jnp.arange(3.0), jnp.ones(3)
    share = 2 / 3 if reduction == "mean" else 2
    expected = (share * (x - y), -share * (x - y))
    for found, place in zip(both(x, y)[1], places, strict=True):
        np.testing.assert_allclose(found, expected[place], rtol=1e-6)
    assert counting.asked == asked


def test_a_loss_alone_asks_for_no_gradient(counting: Counting) -> None:
    """Without a transformation only the loss is computed."""
    remote_loss(counting, "mse_loss")(jnp.ones(3), jnp.zeros(3))
    assert counting.asked == [()]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(client: Client, dtype: str) -> None:
    """Gradients have their input's dtype and are rounded once, after the scale; losses do not."""
    loss = remote_loss(client, "cross_entropy")
    logits = LOGITS.astype(dtype)
    value, gradient = jax.value_and_grad(lambda x: loss(x, CLASSES) * 1000)(logits)
    exact = jax.grad(lambda x: -jax.nn.log_softmax(x)[jnp.arange(6), CLASSES].mean() * 1000)(
        logits.astype("float32")
    )
    assert (value.dtype, gradient.dtype) == ("float32", dtype)
    np.testing.assert_allclose(
        gradient.astype("float32"), exact.astype(dtype).astype("float32"), rtol=1e-2
    )
    assert remote_loss(client, "mse_loss", compute_dtype=dtype)(logits, logits).dtype == dtype


def test_double_precision(client: Client) -> None:
    """With JAX's 64 bits the loss is computed in them."""
    with jax.enable_x64(True):  # noqa: FBT003 (its own signature)
        x = jnp.asarray(RNG.standard_normal(4))
        loss, gradient = jax.value_and_grad(remote_loss(client, "mse_loss", reduction="sum"))(
            x, jnp.zeros(4)
        )
        assert (loss.dtype, gradient.dtype) == ("float64", "float64")
        np.testing.assert_allclose(gradient, 2 * x, rtol=1e-15)


def test_inputs_by_name_options_and_weights(client: Client) -> None:
    """Names, options, class weights, sample weights and normalizer reach the server."""
    loss = remote_loss(client, "cross_entropy", label_smoothing=0.0, ignore_index=3)
    found = loss(
        target=CLASSES,
        input=LOGITS,
        weight=jnp.array([1.0, 2.0, 3.0, 4.0]),
        sample_weight=jnp.array([1.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
        normalizer=2.0,
    )
    class_weight = jnp.array([1.0, 0.0, 3.0, 0.0, 1.0, 2.0])
    np.testing.assert_allclose(found, (VALUES * class_weight).sum() / 2, rtol=1e-6)
    assert loss.__name__ == "cross_entropy"


SHAPES = (
    ("mse_loss", {"input": (2, 3), "target": (2, 3)}, (2, 3)),
    ("mse_loss", {"input": (), "target": ()}, ()),
    ("cross_entropy", {"input": (5, 3, 2, 2), "target": (5, 2, 2)}, (5, 2, 2)),
    ("cross_entropy", {"input": (5, 3, 2), "target": (5, 3, 2)}, (5, 2)),
    ("cross_entropy", {"input": (3,), "target": ()}, ()),
    (
        "binary_cross_entropy_with_logits",
        {"input": (4, 2), "target": (4, 2), "weight": (2,)},
        (4, 2),
    ),
    ("multi_margin_loss", {"input": (4, 3), "target": (4,)}, (4,)),
    ("softmax", {"input": (2, 3)}, (2, 3)),
)


@pytest.mark.parametrize(("name", "shapes", "values"), SHAPES, ids=str)
def test_shapes_of_values(
    client: Client, name: str, shapes: dict[str, tuple[int, ...]], values: tuple[int, ...]
) -> None:
    """The shape that JAX must know beforehand is the one that the server gives."""
    integers = name in ("cross_entropy", "multi_margin_loss") and len(shapes["target"]) != len(
        shapes["input"]
    )
    options: dict[str, Any] = {"dim": 1} if name == "softmax" else {}
    arrays = {
        each: jnp.zeros(shape, "int32" if each == "target" and integers else "float32")
        for each, shape in shapes.items()
    }
    found = remote_loss(client, name, reduction="none", **options)(**arrays)
    assert found.shape == values


def test_mistakes(client: Client) -> None:
    """Wrong calls raise: by JAX's own error where the server refuses, with the server's words."""
    loss = remote_loss(client, "cross_entropy", reduction="none")
    with pytest.raises(NotFoundError, match='there is no loss "mse"'):
        remote_loss(client, "mse")
    with pytest.raises(TypeError, match="takes at most 3 inputs, got 4"):
        loss(LOGITS, CLASSES, None, None)
    with pytest.raises(TypeError, match="cross_entropy got input twice"):
        loss(LOGITS, input=LOGITS)
    with pytest.raises(ValueError, match="cross_entropy: the inputs have shapes"):
        loss(LOGITS, CLASSES[:2])
    with pytest.raises(TypeError, match="there is no gradient with respect to sample_weight"):
        jax.grad(lambda each: loss(LOGITS, CLASSES, sample_weight=each).sum())(jnp.ones(6))
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"class index 9 at \[0\] is not in"):
        loss(LOGITS, CLASSES + 9).block_until_ready()
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"class index 9 at \[0\] is not in"):
        jax.jit(loss)(LOGITS, CLASSES + 9).block_until_ready()


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap])
def test_the_client_itself_is_of_no_use_to_jax(client: Client, transform: Any) -> None:  # noqa: ANN401 (of any signature)
    """Arrays that are traced have no numbers: the error names the function that takes them."""

    def loss(each: jax.Array) -> jax.Array:
        return jnp.asarray(client.evaluate("mse_loss", {"input": each, "target": each}).loss)

    with pytest.raises(TypeError, match=r'^inputs\["input"\]: .*remote_loss'):
        transform(loss)(jnp.ones(3))


def test_what_there_is_no_derivative_of(client: Client) -> None:
    """Forward mode and second derivatives raise instead of being wrong."""
    loss = remote_loss(client, "mse_loss")
    x, y = jnp.ones(3), jnp.zeros(3)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda each: loss(each, y), (x,), (x,))
    with pytest.raises(ValueError, match="Pure callbacks do not support JVP"):
        jax.grad(lambda each: (jax.grad(loss)(each, y) ** 2).sum())(x)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mask", [[True, False], [1, 0], jnp.array([True, False])])
def test_masks_and_lists_are_weights(
    client: Client, mask: list[int] | jax.Array, dtype: str, *, compiled: bool
) -> None:
    """A mask removes rows, and a list of class weights has the type of the input."""
    loss = remote_loss(client, "cross_entropy")
    logits = jnp.array([[0.0, 1.0], [jnp.nan, 0.0]], dtype)
    expected = float(jax.nn.logsumexp(jnp.array([0.0, 1.0])) - 1.0)
    for weight in ([1, 2], [0.1, 0.25], jnp.array([1, 2])):

        def masked(logits: jax.Array, weight: Any = weight) -> jax.Array:  # noqa: ANN401 (any kind)
            return loss(logits, jnp.array([1, 0]), weight=weight, sample_weight=mask)

        both = jax.value_and_grad(masked)
        value, gradient = (jax.jit(both) if compiled else both)(logits)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        assert gradient[1].tolist() == [0.0, 0.0]
