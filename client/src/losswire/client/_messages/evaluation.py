"""One batch to evaluate, as its caller describes it."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypedDict

import numpy.typing as npt

from losswire.client._messages.arrays import ArrayInput
from losswire.wire import OptionScalar

ReductionName = Literal["none", "mean", "sum", "batchmean"]
EngineName = Literal["auto", "autograd"]
GradientFormName = Literal["dense", "factored"]
DTypeInput = npt.DTypeLike | Any
"""A floating type: a name such as `"bfloat16"`, a numpy dtype or a torch dtype."""

_ABSENT: Mapping[str, OptionScalar] = {}


@dataclass(frozen=True, init=False, eq=False)
class Evaluation:
    """One batch to evaluate: a loss, its inputs, and the gradients that are wanted.

    Names of losses, inputs and options are those of `torch.nn.functional`;
    `Client.losses()` lists them with their shapes, dtypes and ranges.

    Arrays may be numpy arrays, torch tensors on any device, anything with `__dlpack__` or
    `__array__`, Python numbers, and nested lists of these. Arrays keep their dtype; Python
    numbers take torch's defaults: float becomes float32, int becomes int64, bool stays bool.

    Weights are floats for the server, and may be given as other numbers: integers and bools in
    `sample_weight` and in the inputs `weight` and `pos_weight` become floats that hold them
    exactly, of the type of `input` for these inputs, else float32, else float64; ValueError when
    none does.
    Python floats in `weight` and `pos_weight` take the type of `input`, too; float16 or bfloat16
    only where the loss takes no other. A resident tensor is sent as it was put.

    Nothing is checked before it is sent: `evaluate` raises TypeError and ValueError for arguments
    that cannot be sent, and InvalidArgumentError with `violations` for those that the server
    refuses.

    Example:
        >>> evaluation = Evaluation(
        ...     "cross_entropy",
        ...     {"input": np.zeros((2, 4), np.float32), "target": [0, 3]},
        ...     {"label_smoothing": 0.1},
        ...     gradients=["input"],
        ... )
        >>> [result] = client.evaluate_many([evaluation])
        >>> result.gradients["input"].shape
        (2, 4)

        A mask removes rows; a class weight of 0 multiplies:

        >>> logits = np.array([[0.0, 0.0], [np.nan, 0.0], [0.0, 0.0]])
        >>> masked = Evaluation(
        ...     "cross_entropy",
        ...     {"input": logits, "target": [1, 0, 0], "weight": [1, 2]},
        ...     sample_weight=[True, False, True],
        ...     gradients=["input"],
        ... )
        >>> [result] = client.evaluate_many([masked])
        >>> round(float(result.loss), 4), result.count, result.gradients["input"][1].tolist()
        (0.6931, 2, [0.0, 0.0])
    """

    loss: str
    """The name of the loss, such as `cross_entropy`."""
    inputs: Mapping[str, ArrayInput]
    """The tensors by name, such as `input` (N, C) and `target` (N)."""
    options: Mapping[str, OptionScalar]
    """The options by name; those that are absent take torch's defaults."""
    _: KW_ONLY
    reduction: ReductionName | None
    """How the values are reduced. None: the loss's own default."""
    gradients: Sequence[str]
    """The names of the inputs whose gradients are wanted."""
    grad_output: ArrayInput | None
    """The gradient of the caller's objective with respect to the loss, in the loss's shape.

    None: 1. Required when gradients are wanted and the loss is no scalar (`reduction="none"`).
    """
    sample_weight: ArrayInput | None
    """A weight for each value: the shape of the values, or (N); or a mask. None: 1.

    It multiplies numerator and denominator of a mean. 0 or False removes a value: it is exactly 0
    in the loss and in gradients, NaN or infinite as it may be, and is not counted. A 0 in an input
    `weight` multiplies instead, as in torch: 0 times infinity is NaN.
    """
    normalizer: float | None
    """Replaces the denominator of a mean; finite and greater than 0."""
    gradient_dtype: DTypeInput | None
    """The floating type of all gradients. None: each input's own."""
    compute_dtype: DTypeInput | None
    """The floating type to compute in and to return the loss in.

    None: float32 for float16 and bfloat16 inputs, the inputs' own otherwise.
    """
    engine: EngineName
    """The path: `"auto"`, or `"autograd"`.

    `"auto"` gives what the formula says, limits taken, by the fastest path whose rms error is
    never larger than torch's. `"autograd"` is torch's own function with torch's own reduction, bit
    for bit in loss and gradients at the same number of threads. `LossInfo.engine_differences`
    lists where they differ.
    """
    gradient_form: GradientFormName
    """`"dense"`: arrays of the inputs' shapes; `"factored"`: a few numbers a row.

    The gradient is then rebuilt here, from the inputs, and is in `EvaluationResult.gradients` all
    the same. For the inputs that `factored_in` names: the logits of `cross_entropy`.
    """

    def __init__(
        self,
        loss: str,
        inputs: Mapping[str, ArrayInput],
        options: Mapping[str, OptionScalar] = _ABSENT,
        *,
        reduction: ReductionName | None = None,
        gradients: Sequence[str] = (),
        grad_output: ArrayInput | None = None,
        sample_weight: ArrayInput | None = None,
        normalizer: float | None = None,
        gradient_dtype: DTypeInput | None = None,
        compute_dtype: DTypeInput | None = None,
        engine: EngineName = "auto",
        gradient_form: GradientFormName = "dense",
    ) -> None:
        """Store the fields as they are; they are checked when they are sent."""
        # A loop makes one for each call. All fields at once take half the time of one by one.
        fields = {
            "loss": loss,
            "inputs": inputs,
            "options": {} if options is _ABSENT else options,
            "reduction": reduction,
            "gradients": gradients,
            "grad_output": grad_output,
            "sample_weight": sample_weight,
            "normalizer": normalizer,
            "gradient_dtype": gradient_dtype,
            "compute_dtype": compute_dtype,
            "engine": engine,
            "gradient_form": gradient_form,
        }
        object.__setattr__(self, "__dict__", fields)


class EvaluationFields(TypedDict, total=False):
    """The keyword-only fields of `Evaluation`, as keyword arguments of `Client.evaluate`."""

    reduction: ReductionName | None
    gradients: Sequence[str]
    grad_output: ArrayInput | None
    sample_weight: ArrayInput | None
    normalizer: float | None
    gradient_dtype: DTypeInput | None
    compute_dtype: DTypeInput | None
    engine: EngineName
    gradient_form: GradientFormName
