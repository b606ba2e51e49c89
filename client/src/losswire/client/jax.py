"""Losses of a server as JAX functions, such as `remote_loss(client, "cross_entropy")`.

Needs jax 0.4.34 or later, which nothing else of the SDK does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from losswire.client import Client, LayoutInfo, LossInfo, NotFoundError
from losswire.client._messages.arrays import is_python_numbers
from losswire.client._messages.evaluation import DTypeInput, EngineName, ReductionName
from losswire.client._messages.weights import WEIGHTS, float_weight
from losswire.wire import OptionScalar

__all__ = ["remote_loss"]

_HALF_PRECISION = ("float16", "bfloat16")
_Arrays = dict[str, Any]
"""Arrays by name; `sample_weight` and `normalizer` are among the inputs."""
_EXTRAS = ("sample_weight", "normalizer")


def remote_loss(
    client: Client,
    loss: str,
    *,
    reduction: ReductionName | None = None,
    compute_dtype: DTypeInput | None = None,
    engine: EngineName = "auto",
    timeout: float | None = None,
    **options: OptionScalar,
) -> Callable[..., jax.Array]:
    """Make a function that a server evaluates, to be used like any other of JAX.

    The function takes the loss's inputs, in torch's order or by name, and by name `sample_weight`
    (or a mask) and `normalizer`. `jax.grad`, `jax.value_and_grad` and `jax.vjp` take the server's
    gradient; there is none with respect to the last two, no forward mode, and no second derivative.
    Under `jax.jit` the server is called each time that the compiled function runs. `jax.vmap` makes
    one call for each element, one after the other: a loss over a batch is one call, so prefer that.

    A reduced loss is one call, which brings along the gradients that are needed and no others. With
    `reduction="none"`, the backward pass is a second call, because a gradient then depends on the
    operations after the loss. Gradients have their input's dtype; the loss of float16 and bfloat16
    inputs is float32 unless `compute_dtype` says otherwise.

    `options` are those of the loss, such as `label_smoothing=0.1`; the other arguments are those of
    `Client.evaluate`. Asks the server for the loss's description. Raises NotFoundError when it does
    not exist. A call that the server refuses raises JAX's own error, which quotes the server's.

    Example:
        >>> mse = remote_loss(client, "mse_loss")
        >>> loss, gradient = jax.value_and_grad(mse)(jnp.array([1.0, 2.0]), jnp.zeros(2))
        >>> float(loss), gradient.tolist()
        (2.5, [1.0, 2.0])
    """
    losses = {each.name: each for each in client.losses()}
    if loss not in losses:
        message = f'there is no loss "{loss}"; there are {", ".join(losses)}'
        raise NotFoundError(message)
    info = losses[loss]
    remote = _Remote(
        client=client,
        info=info,
        options=options,
        fields={
            "reduction": reduction,
            "compute_dtype": compute_dtype,
            "engine": engine,
            "timeout": timeout,
        },
        unreduced=(reduction or info.default_reduction) == "none",
    )
    differentiable = jax.custom_vjp(remote.value)
    differentiable.defvjp(remote.forward, remote.backward, symbolic_zeros=True)

    def function(*inputs: Any, **named: Any) -> jax.Array:
        value: jax.Array = differentiable(_by_name(info, inputs, named))
        return value

    function.__name__ = function.__qualname__ = loss
    function.__doc__ = info.summary
    return function


def _by_name(info: LossInfo, inputs: Sequence[Any], named: _Arrays) -> _Arrays:
    """Return all inputs by name; positional ones come first."""
    names = [each.name for each in info.inputs]
    if len(inputs) > len(names):
        message = f"{info.name} takes at most {len(names)} inputs, got {len(inputs)}"
        raise TypeError(message)
    placed = dict(zip(names, inputs, strict=False))
    if twice := placed.keys() & named.keys():
        message = f"{info.name} got {', '.join(sorted(twice))} twice"
        raise TypeError(message)
    arrays = {**placed, **named}
    return {
        name: jnp.asarray(_typed(info, arrays, name) if name in WEIGHTS else each)
        for name, each in arrays.items()
        if each is not None
    }


def _typed(info: LossInfo, arrays: _Arrays, name: str) -> Any:
    """Return a weight; Python numbers in the floating type that they have beside the input."""
    weight, beside = arrays[name], arrays.get("input")
    if not is_python_numbers(weight):
        return weight
    dtype = None if beside is None else jnp.asarray(beside).dtype
    return float_weight(weight, name, info.name, dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remote:
    """One loss with its settings; everything else is in the arrays of a call."""

    client: Client
    info: LossInfo
    options: Mapping[str, OptionScalar]
    fields: Mapping[str, Any]
    unreduced: bool

    def value(self, arrays: _Arrays) -> Any:
        """Evaluate the loss alone."""
        return self._call(arrays, ())[0]

    def forward(self, primals: _Arrays) -> tuple[Any, Any]:
        """Evaluate the loss, and its gradients if they do not depend on later operations."""
        arrays = {name: each.value for name, each in primals.items()}
        wanted = tuple(
            name
            for name, each in primals.items()
            if each.perturbed and jnp.issubdtype(each.value.dtype, jnp.floating)
        )
        if refused := [name for name in wanted if name in _EXTRAS]:
            message = f"there is no gradient with respect to {', '.join(refused)}"
            raise TypeError(message)
        if self.unreduced:
            return self._call(arrays, ())[0], (arrays, dict.fromkeys(wanted))
        value, gradients = self._call(arrays, wanted)
        return value, (arrays, gradients)

    def backward(self, residuals: Any, cotangent: Any) -> tuple[_Arrays]:
        """Return the gradient of each array, which is 0 where none is needed."""
        arrays, gradients = residuals
        if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
            gradients = {}
        elif self.unreduced:
            _, gradients = self._call(arrays, tuple(gradients), cotangent)
        else:
            gradients = {name: each * cotangent for name, each in gradients.items()}
        return (
            {
                name: gradients[name].astype(each.dtype) if name in gradients else _zero(each)
                for name, each in arrays.items()
            },
        )

    def _call(
        self, arrays: _Arrays, wanted: Sequence[str], grad_output: Any = None
    ) -> tuple[Any, _Arrays]:
        """Call the server while the program runs; returns the loss and gradients."""
        wide = "float64" if any(arrays[each].dtype == "float64" for each in wanted) else "float32"
        narrow = any(arrays[name].dtype.name in _HALF_PRECISION for name in wanted)
        dtypes = {name: wide if narrow else arrays[name].dtype for name in wanted}
        shapes = (
            _struct(self._shape(arrays), self._dtype(arrays)),
            {name: _struct(arrays[name].shape, dtypes[name]) for name in wanted},
        )

        def evaluate(given: _Arrays, output: Any) -> tuple[Any, _Arrays]:
            extras: dict[str, Any] = {name: given.get(name) for name in _EXTRAS}
            if extras["normalizer"] is not None:
                extras["normalizer"] = float(extras["normalizer"])
            result = self.client.evaluate(
                self.info.name,
                {
                    name: self._sendable(name, each)
                    for name, each in given.items()
                    if name not in _EXTRAS
                },
                self.options,
                gradients=list(wanted),
                gradient_dtype=wide if narrow else None,
                grad_output=output,
                **extras,
                **self.fields,
            )
            return result.loss, {name: result.gradients[name] for name in wanted}

        answer: tuple[Any, _Arrays] = jax.pure_callback(
            evaluate, shapes, arrays, grad_output, vmap_method="sequential"
        )
        return answer

    def _sendable(self, name: str, array: Any) -> Any:
        """Widen integers where only int64 is taken: JAX's own are int32."""
        held = np.asarray(array)
        accepted = next((each.dtypes for each in self.info.inputs if each.name == name), ())
        wider = held.dtype.kind in "iu" and held.dtype.name not in accepted
        return held.astype(np.int64) if wider and "int64" in accepted else held

    def _dtype(self, arrays: _Arrays) -> Any:
        """Return the dtype of the loss, as the server chooses it."""
        asked = self.fields["compute_dtype"]
        if asked is not None:
            return jnp.dtype(asked)
        names = {each.name for each in self.info.inputs}
        wide = any(each.dtype == "float64" for name, each in arrays.items() if name in names)
        return jnp.dtype("float64" if wide else "float32")

    def _shape(self, arrays: _Arrays) -> tuple[int, ...]:
        """Return the shape of the loss, which must be known before it is computed."""
        if not self.unreduced:
            return ()
        shapes = {name: each.shape for name, each in arrays.items() if name not in _EXTRAS}
        for layout in self.info.layouts:
            values = _values_shape(layout, shapes)
            if values is not None:
                return values
        expected = "; ".join(str(dict(each.inputs)) for each in self.info.layouts)
        message = f"{self.info.name}: the inputs have shapes {shapes}; expected {expected}"
        raise ValueError(message)


def _struct(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def _zero(array: Any) -> Any:
    """Return the gradient of an array that has none; that of integers has a type of its own."""
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jnp.zeros_like(array)
    return np.zeros(array.shape, jax.dtypes.float0)


def _values_shape(
    layout: LayoutInfo, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...] | None:
    """Return the shape of the values in a layout; None when the inputs do not fit it."""
    lengths: dict[str, tuple[int, ...]] = {}
    if not shapes.keys() <= layout.inputs.keys():
        return None
    for name, shape in shapes.items():
        axes = layout.inputs[name].split()
        if any(each.startswith("#") for each in axes):
            continue  # it broadcasts to axes that another input has
        groups = [place for place, each in enumerate(axes) if each.startswith("*")]
        extra = len(shape) - len(axes) + 1
        if extra < 0 or (not groups and extra != 1):
            return None
        rest = list(shape)
        for axis in axes:
            count = extra if axis.startswith("*") else 1
            found = tuple(rest[:count])
            rest = rest[count:]
            if axis.isdigit() and found != (int(axis),):
                return None
            if lengths.setdefault(axis, found) != found:
                return None
    return tuple(length for axis in layout.values.split() for length in lengths[axis])
