"""Whether an answer is one to its request: the names, shapes and dtypes that must come back.

An answer that is well-formed may still be another's, or a faulty server's. Copied into an array of
the caller's it would even be broadcast there without a word.
"""

import math
from functools import lru_cache
from itertools import chain
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from losswire.client._errors import InternalError, LosswireError, unfit_error
from losswire.client._messages.arrays import as_array
from losswire.client._messages.evaluation import DTypeInput, Evaluation
from losswire.client._messages.outputs import Spec
from losswire.client._messages.placed_array import PlacedArray
from losswire.client._messages.request import float_type
from losswire.client._messages.resident import StoredTensor
from losswire.client._messages.response import EvaluationResult
from losswire.wire import BY_NAME, DATA_TYPES, wire_type_of

Array: TypeAlias = npt.NDArray[Any]

_REDUCED: Final = frozenset({"mean", "sum", "batchmean"})
_SCALAR: Final[tuple[int, ...]] = ()
_FACTOR: Final = np.dtype(np.float64)
"""The dtype of factors, whatever that of the gradient."""


class Fit:
    """The facts about an answer that follow from its request."""

    __slots__ = (
        "_dtype",
        "_gradients",
        "_is_factored",
        "_is_reduced",
        "_lengths",
        "_rows",
        "_shape",
        "_weight",
    )

    def __init__(self, evaluation: Evaluation, rows: int | None = None) -> None:
        """Read them from an evaluation whose weights are floats, as they are sent.

        `rows` is the number of rows that stream, the length of the values' first axis. What is
        wrong with the evaluation is left to the server to say.
        """
        inputs = evaluation.inputs
        specs = {name: _spec_of(value) for name, value in inputs.items()}
        asked = evaluation.gradient_dtype
        self._gradients: dict[str, Spec] = {
            name: specs[name] if asked is None else (_float_of(asked), specs[name][1])
            for name in evaluation.gradients
            if name in specs
        }
        wanted: Any = evaluation.compute_dtype
        self._dtype = _loss_dtype(wanted, *[dtype for dtype, _ in specs.values()])
        """The dtype of the loss; None where it takes torch's rules to say."""
        self._shape: tuple[int, ...] | None = None
        """The shape of the loss; None where it takes the loss's description to say."""
        if evaluation.reduction in _REDUCED:
            self._shape = _SCALAR
        elif evaluation.grad_output is not None:
            self._shape = _spec_of(evaluation.grad_output)[1]
        elif self._gradients:
            # Servers refuse gradients of others without `grad_output`.
            self._shape = _SCALAR
        self._is_reduced = evaluation.reduction is None
        """Whether a loss whose shape is not known is reduced, unless it is an activation."""
        weight = evaluation.sample_weight
        if self._is_reduced and not (weight is None and evaluation.normalizer is None):
            # Activations take neither.
            self._shape = _SCALAR
        self._weight = None if weight is None else _spec_of(weight)[1]
        """The shape of the sample weight, which is that of the values or of their first axis."""
        self._rows = rows
        self._lengths: frozenset[int] = frozenset()
        """The lengths of the axes of values: those of the inputs' axes, or 1."""
        if self._shape is None:
            self._lengths = frozenset((1, *chain.from_iterable(each for _, each in specs.values())))
        self._is_factored = evaluation.gradient_form == "factored"

    def check(self, result: EvaluationResult) -> EvaluationResult:
        """Return a result that fits; InternalError for any other."""
        loss, gradients = result.loss, result.gradients
        if self._shape is None:
            if loss.shape or not self._is_reduced:
                self._check_values(loss.shape, result.count)
        elif loss.shape != self._shape:
            raise unfit_error(f"loss: is {list(loss.shape)}; expected {list(self._shape)}")
        if loss.dtype != self._dtype:
            self._check_dtype(loss.dtype)
        if result.count < 0:
            raise unfit_error(f"count: is {result.count}")
        if len(gradients) != len(self._gradients) or result.factored_gradients:
            self._check_names(result)
        for name, array in gradients.items():
            dtype, shape = self._gradients[name]
            if array.shape != shape or array.dtype != dtype:
                raise unfit_error(
                    f'gradients["{name}"]: is {array.dtype} {list(array.shape)}; '
                    f"expected {dtype} {list(shape)}"
                )
        return result

    def check_outcome(
        self, outcome: EvaluationResult | LosswireError
    ) -> EvaluationResult | LosswireError:
        """Return the outcome of one item of many, or the error of a result that does not fit."""
        try:
            return outcome if isinstance(outcome, LosswireError) else self.check(outcome)
        except InternalError as error:
            return error

    def _check_values(self, shape: tuple[int, ...], count: int) -> None:
        """Check what follows, without a loss's description, from the shape of its values."""
        if not self._lengths.issuperset(shape):
            raise unfit_error(f"loss: is {list(shape)}; expected lengths of its inputs' axes")
        if self._rows is not None and shape[:1] != (self._rows,):
            raise unfit_error(f"loss: is {list(shape)}; expected {self._rows} rows")
        if self._weight is not None and self._weight not in (shape, shape[:1]):
            raise unfit_error(f"loss: is {list(shape)}; its sample weight is {list(self._weight)}")
        # Nothing is counted for activations, which alone are not reduced by default.
        most = 0 if self._is_reduced else math.prod(shape)
        if count > most:
            raise unfit_error(f"count: is {count}; expected at most {most} of {list(shape)}")

    def _check_dtype(self, dtype: np.dtype[Any]) -> None:
        wire_type = wire_type_of(dtype)
        if self._dtype is not None or wire_type is None or not wire_type.is_float:
            expected = "a floating type" if self._dtype is None else self._dtype
            raise unfit_error(f"loss: is {dtype}; expected {expected}")

    def _check_names(self, result: EvaluationResult) -> None:
        """Check that each gradient came that was asked for, as itself or as factors."""
        found = {*result.gradients, *result.factored_gradients}
        missing, more = self._gradients.keys() - found, found - self._gradients.keys()
        if missing:
            raise unfit_error(f"no gradient of {', '.join(sorted(missing))}")
        if more:
            raise unfit_error(f"gradients of {', '.join(sorted(more))}, which nobody asked for")
        for name, factors in result.factored_gradients.items():
            if not self._is_factored:
                raise unfit_error(f'gradients["{name}"]: are factors; expected an array')
            for array in factors.arrays:
                if array.dtype != _FACTOR:
                    raise unfit_error(f'factored_gradients["{name}"]: has {array.dtype}')


def _spec_of(value: Any) -> Spec:
    if type(value) is np.ndarray:
        dtype = value.dtype
        return dtype if dtype.isnative else dtype.newbyteorder("="), value.shape
    if isinstance(value, StoredTensor):
        return value.dtype, value.shape
    if isinstance(value, PlacedArray):
        value = value.array
    known = BY_NAME.get(str(getattr(value, "dtype", "")).removeprefix("torch."))
    if known is not None and hasattr(value, "shape"):
        # Without a copy from a device.
        return known.numpy, tuple(value.shape)
    return _spec_of(np.asarray(as_array(value, "")))


@lru_cache(maxsize=256)
def _loss_dtype(asked: DTypeInput | None, *inputs: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype of a loss by those of its inputs; None where torch's rules decide."""
    if asked is not None:
        return _float_of(asked)
    found = {each for each in map(wire_type_of, inputs) if each is not None and each.is_float}
    if len(found) != 1:
        return None
    [only] = found
    return BY_NAME["float32"].numpy if only.item_size < BY_NAME["float32"].item_size else only.numpy


def _float_of(asked: DTypeInput) -> np.dtype[Any]:
    return DATA_TYPES[float_type(asked, "dtype")].numpy
