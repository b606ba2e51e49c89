"""The record of a loss: everything that one decorated function declares about it.

Validation, ListLosses, the documentation and the parameters of the tests all follow from the
record. The functions are in `losses/`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from types import NoneType
from typing import Any, Final, get_args, get_type_hints

import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import (
    ClosedForm,
    Denominators,
    PerValueTerms,
    TiledForm,
)
from losswire.server.catalogue.engine_difference import EngineDifference
from losswire.server.catalogue.layouts import Layout
from losswire.server.catalogue.options import Option, OptionField
from losswire.server.catalogue.value_rules import REALS, Context, Values


class Reduction(Enum):
    """How values are reduced to the loss; the names are torch's."""

    NONE = "none"
    MEAN = "mean"
    SUM = "sum"
    BATCHMEAN = "batchmean"


_REDUCTION: Final = "reduction"
"""The parameter of a function that takes torch's reductions."""

LOSS_REDUCTIONS: Final = (Reduction.NONE, Reduction.MEAN, Reduction.SUM)


class Kind(Enum):
    """The kind of function that a record describes."""

    LOSS = "loss"
    ACTIVATION = "activation"


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input in all layouts."""

    meaning: str
    """One sentence."""
    differentiable: bool | tuple[str, ...] = False
    """Whether it has a gradient: in all layouts, in none, or in those named."""
    promotes: bool | tuple[str, ...] = False
    """Whether its floating dtype may differ from that of the other inputs: in all layouts, in
    none, or in those named."""
    fixed_for_gradients: tuple[str, ...] = ()
    """The inputs for whose gradients it may not differ."""
    values: tuple[Values, ...] = (REALS,)
    """The rules of its values: for floats, then (where a layout has them) for indices."""

    def rule_for(self, *, is_float: bool) -> Values:
        """Return the rule for floats or for indices."""
        return self.values[0] if is_float else self.values[-1]

    def promotes_in(self, layout: str) -> bool:
        """Return whether its floating dtype may differ in a layout."""
        return self.promotes if isinstance(self.promotes, bool) else layout in self.promotes


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The memory and work of an evaluation, as admission estimates them beforehand."""

    buffers: float = 4.0
    """Peak memory, in multiples of all inputs in the compute dtype, loss only."""
    buffers_with_gradients: float = 8.0
    """The same, with gradients."""
    scratch: Callable[[Context], int] | None = None
    """The number of elements of temporaries much larger than the inputs, such as logits made of
    two matrices; counted like elements of the inputs. None: there are none."""
    steps: Callable[[Context], int] | None = None
    """The work with gradients, if it grows faster than the memory, in steps of about a
    nanosecond on a CPU. None: it does not."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The result of a loss function: the values and how their mean is formed."""

    values: Tensor
    """The loss of each element, unreduced."""
    numerator_scale: Tensor | None = None
    """The factor by which each value enters the mean; None: 1. In the values' shape."""
    denominators: Tensor | None = None
    """The share of each value in the mean's denominator; None: 1. In the values' shape."""
    counted: Tensor | None = None
    """Which values torch itself does not ignore; None: all. In the values' shape."""


@dataclass(frozen=True, kw_only=True)
class LossRecord:
    """All facts about one loss."""

    function: Callable[..., Terms]
    kind: Kind
    layouts: tuple[Layout, ...]
    inputs: Mapping[str, Input]
    options: Mapping[str, Option]
    reductions: tuple[Reduction, ...]
    mean_denominator: str
    separable: bool
    promotes_integers: bool
    result_inputs: tuple[str, ...]
    cost: Cost
    source: str
    denominators: Mapping[str, Denominators]
    counted: Mapping[str, PerValueTerms]
    closed_forms: Mapping[str, ClosedForm]
    tiled_forms: Mapping[str, TiledForm]
    formula: Callable[..., Terms] | None
    differences: tuple[EngineDifference, ...]
    option_fields: Mapping[str, OptionField] = field(default_factory=dict)
    required_inputs: frozenset[str] = frozenset()
    reduces: bool = False
    """Whether the function takes a `reduction`."""

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.__name__

    @property
    def default_reduction(self) -> Reduction:
        """The reduction of an evaluation that names none."""
        return Reduction.NONE if self.kind is Kind.ACTIVATION else Reduction.MEAN

    @cached_property
    def description(self) -> str:
        """The docstring."""
        return inspect.getdoc(self.function) or ""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.description.partition("\n")[0]

    def differentiable_in(self, name: str) -> tuple[str, ...]:
        """Return the names of the layouts in which an input has a gradient."""
        where = self.inputs[name].differentiable
        if isinstance(where, bool):
            return tuple(each.name for each in self.layouts if name in each.inputs and where)
        return where

    def factored_in(self, name: str) -> tuple[str, ...]:
        """Return the names of the layouts in which an input's gradient can be factored."""
        forms = {key: each for key, each in self.closed_forms.items() if each.factored == name}
        names = {*forms, *(each.single for each in forms.values())}
        return tuple(each.name for each in self.layouts if each.name in names)

    def __call__(self, *args: Any, **kwargs: Any) -> Terms:  # noqa: ANN401 (the function's own)
        """Call the function, so that one loss can be written in terms of another."""
        return self.function(*args, **kwargs)


class RecordError(TypeError):
    """A decorator and its function do not agree; raised when the module is imported."""


def loss(
    *,
    layouts: Sequence[Layout],
    inputs: Mapping[str, Input],
    options: Mapping[str, Option] | None = None,
    reductions: Sequence[Reduction] = LOSS_REDUCTIONS,
    mean_denominator: str = "the number of values",
    separable: bool = True,
    promotes_integers: bool = False,
    result_inputs: Sequence[str] = (),
    cost: Cost = Cost(),
    denominators: Mapping[str, Denominators] | None = None,
    counted: Mapping[str, PerValueTerms] | None = None,
    closed_forms: Mapping[str, ClosedForm] | None = None,
    tiled_forms: Mapping[str, TiledForm] | None = None,
    formula: Callable[..., Terms] | None = None,
    differences: Sequence[EngineDifference] = (),
    source: str,
) -> Callable[[Callable[..., Terms]], LossRecord]:
    """Turn a function of tensors into the record of a loss.

    The function's parameters are the inputs (annotated `Tensor`, or
    `Tensor | None = None` when optional) and then the options (annotated `bool`,
    `int`, `float` or `str`, with torch's default). It returns unreduced `Terms`.
    A last parameter `reduction: str = "none"` is passed on to torch's function, so that
    `Terms.values` holds the reduced loss; without it the server reduces in both engines.
    `promotes_integers`: whether integer inputs are computed in float32 without
    being asked to, as torch does for some functions.
    `result_inputs`: the inputs to whose promoted type torch rounds the loss; without it, all.
    `denominators`: for the layouts, by name, whose terms have denominators, how these
    follow from some inputs alone; without it a chunked mean with gradients needs a
    normalizer.
    `counted`: for the layouts, by name, that have ignored rows, which values count.
    `closed_forms`: for some layouts, by name, how to compute without autograd.
    `tiled_forms`: the same, where intermediate results are much larger than the inputs.
    `formula`: a function of the same parameters with the limits that torch's lacks (0 log 0),
    for `engine = auto` where no closed form is taken. None: torch's function has all.
    `differences`: where `engine = auto` and torch give different numbers.
    Raises RecordError when decorator and signature disagree.
    """
    return _decorator(
        kind=Kind.LOSS,
        layouts=tuple(layouts),
        inputs=inputs,
        options=options or {},
        reductions=tuple(reductions),
        mean_denominator=mean_denominator,
        separable=separable,
        promotes_integers=promotes_integers,
        result_inputs=tuple(result_inputs),
        cost=cost,
        denominators=denominators or {},
        counted=counted or {},
        closed_forms=closed_forms or {},
        tiled_forms=tiled_forms or {},
        formula=formula,
        differences=tuple(differences),
        source=source,
    )


def activation(
    *,
    layouts: Sequence[Layout],
    inputs: Mapping[str, Input],
    options: Mapping[str, Option] | None = None,
    promotes_integers: bool = False,
    source: str,
) -> Callable[[Callable[..., Terms]], LossRecord]:
    """Turn a function of tensors into the record of an activation, which has no reduction.

    `promotes_integers`: whether integer inputs are computed in float32 without
    being asked to, as torch does for some functions.
    """
    return _decorator(
        kind=Kind.ACTIVATION,
        layouts=tuple(layouts),
        inputs=inputs,
        options=options or {},
        reductions=(Reduction.NONE,),
        mean_denominator="",
        separable=True,
        promotes_integers=promotes_integers,
        result_inputs=(),
        cost=Cost(),
        denominators={},
        counted={},
        closed_forms={},
        tiled_forms={},
        formula=None,
        differences=(),
        source=source,
    )


def _decorator(**facts: Any) -> Callable[[Callable[..., Terms]], LossRecord]:  # noqa: ANN401 (the record's fields)
    def decorate(function: Callable[..., Terms]) -> LossRecord:
        required, fields = _read_signature(function)
        record = LossRecord(
            function=function,
            required_inputs=required,
            option_fields=fields,
            reduces=_REDUCTION in inspect.signature(function).parameters,
            **facts,
        )
        _check_agreement(record)
        return record

    return decorate


def _read_signature(
    function: Callable[..., Terms],
) -> tuple[frozenset[str], dict[str, OptionField]]:
    """Split the parameters into required inputs and options."""
    hints = get_type_hints(function)
    required: set[str] = set()
    options: dict[str, OptionField] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name == _REDUCTION:
            continue
        hint = hints.get(name)
        missing = parameter.default is inspect.Parameter.empty
        kinds = [each for each in get_args(hint) or (hint,) if each is not NoneType]
        if kinds == [torch.Tensor]:
            if missing:
                required.add(name)
        elif len(kinds) == 1 and kinds[0] in (bool, int, float, str):
            options[name] = OptionField(kinds[0], None if missing else parameter.default, missing)
        else:
            message = f"{function.__name__}: parameter {name} is neither a Tensor nor an option"
            raise RecordError(message)
    return frozenset(required), options


def _check_agreement(record: LossRecord) -> None:
    """Check that the decorator agrees with the signature."""
    signature = inspect.signature(record.function)
    parameters = [name for name in signature.parameters if name != _REDUCTION]
    described = [*record.inputs, *record.options]
    if parameters != described:
        message = f"{record.name}: the signature has {parameters}, the decorator {described}"
        raise RecordError(message)
    if list(record.option_fields) != list(record.options):
        message = f"{record.name}: inputs must come before options"
        raise RecordError(message)
    for each in record.layouts:
        if unknown := set(each.inputs) - set(record.inputs):
            message = f"{record.name}: layout {each.name} has unknown inputs {sorted(unknown)}"
            raise RecordError(message)
        if absent := record.required_inputs - set(each.inputs):
            message = f"{record.name}: layout {each.name} lacks the inputs {sorted(absent)}"
            raise RecordError(message)
        # Callers check the shape of an unreduced loss by it.
        axes = {"1"}.union(*(spec.axes.tokens for spec in each.inputs.values()))
        if unbound := set(each.values.tokens) - {token.lstrip("#") for token in axes}:
            message = f"{record.name}: layout {each.name}: no input has the axes {sorted(unbound)}"
            raise RecordError(message)
    if not record.description:
        message = f"{record.name}: a loss needs a docstring"
        raise RecordError(message)
