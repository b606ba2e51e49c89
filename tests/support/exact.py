"""Compares the service's answers with torch's results, bit for bit."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from losswire.server.catalogue.record import Kind, Reduction
from tests.support.caller import Array, Ask, Result
from tests.support.reference import REFERENCES, Reference
from tests.support.sampling import NUMPY, Ground, default_compute_dtype

MEANS = (Reduction.MEAN, Reduction.BATCHMEAN)
_BFLOAT16 = NUMPY["bfloat16"]
_DOUBLE_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One evaluation of the table and where it takes place."""

    ground: Ground
    ask: Ask


def to_tensor(array: Array) -> Tensor:
    """Return a tensor with a copy of an array."""
    if array.dtype == _BFLOAT16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def to_array(tensor: Tensor) -> Array:
    """Return a tensor as an array."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(_BFLOAT16)
    return tensor.numpy()


def same_bits(found: Array, expected: Array) -> bool:
    """Return whether two arrays are the same to the last bit; any NaN equals any other."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if found.dtype.kind in "iub":
        return bool((found == expected).all())
    unsigned = f"u{found.dtype.itemsize}"
    bits = found.view(unsigned) == np.ascontiguousarray(expected).view(unsigned).reshape(
        found.shape
    )
    return bool((bits | (np.isnan(found) & np.isnan(expected))).all())


def _facts(dtype: str) -> Any:  # noqa: ANN401 (one of two classes, of which one is untyped)
    """Return the limits of a floating type."""
    return ml_dtypes.finfo(NUMPY[dtype])  # type: ignore[no-untyped-call]


def epsilon(dtype: str) -> float:
    """Return the distance from 1 to the next number of a floating type."""
    return float(_facts(dtype).eps)


def ulp(value: float, dtype: str) -> float:
    """Return the distance of a number to its neighbour in a floating type."""
    facts = _facts(dtype)
    if not math.isfinite(value) or abs(value) < float(facts.smallest_normal):
        return float(facts.smallest_subnormal)
    return float(facts.eps) * 2.0 ** math.floor(math.log2(abs(value)))


def near(found: float, expected: float, tolerance: float) -> bool:
    """Return whether two numbers are close, infinities and NaN being close to themselves."""
    if math.isnan(expected) or math.isinf(expected):
        return found == expected or (math.isnan(found) and math.isnan(expected))
    return abs(found - expected) <= tolerance


@dataclass(kw_only=True)
class Torch:
    """torch's evaluation of a cell, step by step; every step can be compared."""

    cell: Cell
    result: Result
    """The answer, whose reported denominator fixes the coefficients once it has been verified."""
    reference: Reference = field(init=False)
    dtype: str = field(init=False)
    loss_dtype: str = field(init=False)
    inputs: Mapping[str, Tensor] = field(init=False)
    values: Tensor = field(init=False)
    weight: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        ask, ground = self.cell.ask, self.cell.ground
        self.reference = REFERENCES[ask.loss]
        floats = [ask.inputs[name] for name in ground.floating(list(ask.inputs))]
        # A scalar takes the type of the arrays beside it.
        decisive = [array for array in floats if array.ndim] or floats
        real = {array.dtype.name for array in decisive}
        self.dtype = ask.compute_dtype or default_compute_dtype(real)
        self.inputs = {name: self._leaf(name, array) for name, array in ask.inputs.items()}
        self.values = self.reference.call(self.inputs, ask.options, "none")
        self.loss_dtype = self.dtype
        if ask.compute_dtype is None and self.values.dtype != torch.float64:
            self.loss_dtype = "float32"
        self.weight = self._expand(ask.sample_weight)

    def _leaf(self, name: str, array: Array) -> Tensor:
        tensor = to_tensor(array)
        if self.cell.ground.layout.inputs[name].is_float and not self._promotes(array):
            tensor = tensor.to(getattr(torch, self.dtype))
        return tensor.requires_grad_(name in self.cell.ask.gradients_for)

    def _promotes(self, array: Array) -> bool:
        """Return whether torch promotes the input itself, to another one's float64."""
        types = {each.dtype.name for each in self.cell.ask.inputs.values()}
        return array.dtype.name in ("float32", "float64") and "float64" in types

    @property
    def reduces(self) -> bool:
        """Whether torch's own reduction gives the loss: it has all that is asked for."""
        ask = self.cell.ask
        return (
            self.cell.ground.record.reduces
            and ask.reduction is not Reduction.NONE
            and self.weight is None
            and ask.normalizer is None
            and self.values.numel() > 0
        )

    def _expand(self, weight: Array | None) -> Tensor | None:
        if weight is None:
            return None
        tensor = to_tensor(weight).double()
        shape = self.values.shape
        return tensor.reshape(tensor.shape + (1,) * (len(shape) - tensor.dim())).expand(shape)

    def weighted(self, tensor: Tensor) -> Tensor:
        """Multiply by the sample weight; values of weight 0 are 0."""
        if self.weight is None:
            return tensor.double()
        return torch.where(self.weight == 0, 0.0, tensor.double() * self.weight)

    @property
    def scales(self) -> Tensor:
        """The factor with which each value enters the mean."""
        found = self.reference.scales(self.inputs, self.cell.ask.options, self.values.detach())
        return torch.ones(self.values.shape, dtype=torch.float64) if found is None else found

    @property
    def denominators(self) -> Tensor:
        """The share of each value in the mean's denominator, in the compute dtype."""
        found = self.reference.denominators(
            self.inputs, self.cell.ask.options, self.values.detach()
        )
        return torch.ones(self.values.shape, dtype=torch.float64) if found is None else found

    @property
    def weighted_denominators(self) -> list[float]:
        """The terms of the mean's denominator."""
        numbers = self.weighted(self.denominators.detach())
        if self.cell.ask.reduction is Reduction.BATCHMEAN and self.values.dim():
            # A row counts once, however many values it has; also if it has none.
            values_a_row = math.prod(self.values.shape[1:])
            if not values_a_row:
                return [1.0] * len(self.values)
            numbers = numbers / values_a_row
        return numbers.flatten().tolist()

    @property
    def count(self) -> int:
        """The number of values that count."""
        counted = self.reference.counted(self.inputs, self.cell.ask.options, self.values.detach())
        taken = torch.ones(self.values.shape, dtype=torch.bool) if counted is None else counted
        return int((taken if self.weight is None else taken & (self.weight != 0)).sum())

    def gradients(self) -> dict[str, Array]:
        """Differentiate by torch's own autograd from the coefficients of each value."""
        ask, result = self.cell.ask, self.result
        leaves = [self.inputs[name] for name in ask.gradients_for]
        grad_output = torch.tensor(1.0).double()
        if ask.grad_output is not None:
            grad_output = to_tensor(ask.grad_output).double()
        if self.reduces:
            loss = self.own_reduction()
            found = torch.autograd.grad(
                loss, leaves, grad_output.to(loss.dtype), materialize_grads=True
            )
            return self._in_wanted_types(found)
        each = grad_output.expand(self.values.shape)
        denominators = self.denominators
        outputs, coefficients = [self.values], [each]
        if ask.reduction in MEANS:
            coefficients = [each / result.mean_denominator * self.scales]
            if denominators.requires_grad and ask.normalizer is None:
                # The denominator depends on an input: d(n / d) has a second term.
                mean = _divide(result.mean_numerator, result.mean_denominator)
                outputs.append(denominators)
                coefficients.append(-each * _divide(mean, result.mean_denominator))
        starts = [
            self.weighted(some).to(output.dtype).contiguous()
            for some, output in zip(coefficients, outputs, strict=True)
        ]
        # torch leaves an input out of its graph where its gradient is 0 by definition.
        return self._in_wanted_types(
            torch.autograd.grad(outputs, leaves, starts, materialize_grads=True)
        )

    def _in_wanted_types(self, gradients: Sequence[Tensor]) -> dict[str, Array]:
        ask = self.cell.ask
        return {
            name: to_array(
                gradient.to(getattr(torch, ask.gradient_dtype or ask.inputs[name].dtype.name))
            )
            for name, gradient in zip(ask.gradients_for, gradients, strict=True)
        }

    def slack_of_second_term(self, name: str) -> float:
        """Return the tolerance of the gradient of an input of the denominator; 0 for others.

        It has two terms that may cancel each other, and the service may round the
        coefficient -n / d**2 of the second in any order.
        """
        ask, result = self.cell.ask, self.result
        if self.reduces or ask.reduction not in MEANS or ask.normalizer is not None:
            return 0.0
        if self.denominators is not self.inputs[name]:
            return 0.0
        mean = _divide(result.mean_numerator, result.mean_denominator)
        grad_output = 1.0 if ask.grad_output is None else abs(float(ask.grad_output))
        factor = 1.0 if self.weight is None else float(self.weight.abs().max())
        dtype = ask.gradient_dtype or ask.inputs[name].dtype.name
        eps = max(epsilon(dtype), epsilon(self.dtype))
        slack = 4 * eps * grad_output * factor * abs(_divide(mean, result.mean_denominator))
        return slack if math.isfinite(slack) else 0.0

    def own_reduction(self) -> Tensor:
        """Let torch reduce by itself."""
        assert self.cell.ask.reduction is not None
        reduction = self.cell.ask.reduction.value
        return self.reference.call(self.inputs, self.cell.ask.options, reduction)


def differences(cell: Cell, result: Result) -> Iterator[str]:
    """Return the differences of an answer from torch; empty: none."""
    torch_says = Torch(cell=cell, result=result)
    if result.engine != "autograd":
        yield f"took the path {result.engine}"
    if result.compute_dtype != torch_says.dtype:
        yield f"computed in {result.compute_dtype}, expected {torch_says.dtype}"
    if cell.ground.record.kind is Kind.LOSS:
        yield from _different_sums(torch_says)
        if cell.ask.reduction is not Reduction.NONE:
            yield from _different_reduction(torch_says)
    if cell.ask.reduction is Reduction.NONE:
        values = torch_says.values.detach()
        if torch_says.weight is not None:
            values = torch_says.weighted(values).to(values.dtype)
        values = values.to(getattr(torch, torch_says.loss_dtype))
        if not same_bits(result.loss, to_array(values)):
            yield f"values are {result.loss}, torch's {to_array(values)}"
    if tuple(result.gradients) != tuple(sorted(cell.ask.gradients_for)) and set(
        result.gradients
    ) != set(cell.ask.gradients_for):
        yield f"gradients for {list(result.gradients)}"
    elif cell.ask.gradients_for:
        yield from _different_gradients(torch_says)


def _different_sums(torch_says: Torch) -> Iterator[str]:
    """Compare sum, numerator, denominator and count with an exact addition of torch's values."""
    result = torch_says.result
    values = torch_says.values.detach().double()
    parts = (
        ("sum", result.sum, torch_says.weighted(values)),
        ("mean_numerator", result.mean_numerator, torch_says.weighted(values * torch_says.scales)),
    )
    for name, found, terms in parts:
        numbers = terms.flatten().tolist()
        exact = _add(numbers)
        if not near(found, exact, _rounding_of_addition(numbers)):
            yield f"{name} is {found!r}, expected {exact!r}"
    numbers = torch_says.weighted_denominators
    normalizer = torch_says.cell.ask.normalizer
    denominator = _add(numbers) if normalizer is None else normalizer
    slack = _rounding_of_addition(numbers) if normalizer is None else 0.0
    if not near(result.mean_denominator, denominator, slack):
        yield f"mean_denominator is {result.mean_denominator!r}, expected {denominator!r}"
    if result.count != torch_says.count:
        yield f"count is {result.count}, expected {torch_says.count}"


def _different_reduction(torch_says: Torch) -> Iterator[str]:
    """Compare the reduced loss with torch's own, or if torch has none with that in float64."""
    result, ask = torch_says.result, torch_says.cell.ask
    found, dtype = float(result.loss), torch_says.loss_dtype
    if result.loss.shape != () or result.loss.dtype != NUMPY[dtype]:
        yield f"loss is {result.loss.dtype}{list(result.loss.shape)}"
    if torch_says.reduces:
        own = to_array(torch_says.own_reduction().to(getattr(torch, dtype)))
        if not same_bits(result.loss, own):
            yield f"loss is {found!r}, torch's own reduction {own!r}"
        return
    reported = result.sum
    numbers = torch_says.weighted(torch_says.values.detach()).flatten().tolist()
    divisor = 1.0
    if ask.reduction in MEANS:
        divisor = result.mean_denominator
        reported = _divide(result.mean_numerator, divisor)
        scaled = torch_says.values.detach().double() * torch_says.scales
        numbers = torch_says.weighted(scaled).flatten().tolist()
    if not same_bits(result.loss, to_array(torch.tensor(reported, dtype=getattr(torch, dtype)))):
        yield f"loss is {found!r}, but the sums say {reported!r}"
    exact = _divide(_add(numbers), divisor)
    own_error = _divide(_rounding_of_addition(numbers), abs(divisor))
    if not near(found, exact, 4 * ulp(exact, dtype) + own_error):
        yield f"loss is {found!r}, expected {exact!r}"


def _different_gradients(torch_says: Torch) -> Iterator[str]:
    """Compare the gradients with torch's, where it has no such reduction for given coefficients."""
    result = torch_says.result
    own = torch_says.gradients()
    if torch_says.weight is not None:
        own = {name: _without_negative_zero(gradient) for name, gradient in own.items()}
    for name, expected in own.items():
        given = result.gradients[name]
        if torch_says.weight is not None:
            # What is removed has the gradient 0, where torch may say -0.
            given = _without_negative_zero(given)
        slack = torch_says.slack_of_second_term(name)
        if slack and given.dtype == expected.dtype:
            equal = np.allclose(given.astype(float), expected.astype(float), 0.0, slack)
        else:
            equal = same_bits(given, expected)
        if not equal:
            yield f"gradient of {name} is {given}, torch's {expected}"


def _without_negative_zero(array: Array) -> Array:
    """Return the array with every zero positive."""
    return np.where(array == 0, np.zeros((), array.dtype), array)


def _add(numbers: list[float]) -> float:
    """Add exactly, rounding once; NaN where infinities meet."""
    if all(map(math.isfinite, numbers)):
        return math.fsum(numbers)
    return sum(numbers)


def _rounding_of_addition(numbers: list[float]) -> float:
    """Return the possible error of a sum in float64, in any order."""
    return len(numbers) * _DOUBLE_EPS * sum(map(abs, numbers)) if numbers else 0.0


def _divide(numerator: float, denominator: float) -> float:
    """Divide as IEEE 754 does."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.float64(numerator) / np.float64(denominator))
