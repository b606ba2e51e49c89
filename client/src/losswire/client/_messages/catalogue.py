"""The descriptions of a server and its losses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from losswire.client._messages.request import names_of
from losswire.v1 import evaluation_pb2, loss_info_pb2, loss_service_pb2
from losswire.wire import OptionScalar, decode_option, dtype_name

_REDUCTIONS = names_of(evaluation_pb2.Reduction)
_KINDS = names_of(loss_info_pb2.LossKind)
_OPTION_TYPES: dict[int, type[OptionScalar]] = {
    loss_info_pb2.OPTION_TYPE_DOUBLE: float,
    loss_info_pb2.OPTION_TYPE_INT64: int,
    loss_info_pb2.OPTION_TYPE_BOOL: bool,
    loss_info_pb2.OPTION_TYPE_STRING: str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InputInfo:
    """The description of one input."""

    name: str
    """The name to use in `inputs`."""
    description: str
    """Its meaning, in one sentence."""
    dtypes: tuple[str, ...]
    """The accepted dtypes, such as `float32`."""
    required: bool
    """Whether an evaluation must have it."""
    differentiable_in: tuple[str, ...]
    """The names of the layouts in which its gradient can be asked for."""
    factored_in: tuple[str, ...]
    """The names of the layouts in which its gradient can be asked for in factored form."""
    value_rules: tuple[str, ...]
    """The values that are accepted; others are refused."""
    value_hints: tuple[str, ...]
    """The values that are meant; others are accepted, with torch's result."""
    promotes: bool
    """Whether its floating type may differ from that of the other inputs, in some layout."""
    promotes_in: tuple[str, ...] = ()
    """The names of the layouts in which it may."""
    fixed_for_gradients: tuple[str, ...] = ()
    """The inputs for whose gradients it may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionInfo:
    """The description of one option."""

    name: str
    """The name to use in `options`."""
    description: str
    """Its effect, in one sentence."""
    type: type[OptionScalar] | None
    """The Python type of its value; None when only a newer SDK knows it."""
    default: OptionScalar | None
    """The value taken when it is absent; None when there is none."""
    required: bool
    """Whether an evaluation must have it."""
    range: str
    """The accepted range in words, such as `[0, 1]` or `(0, inf]`, which includes infinity; NaN is
    in none. Empty when every value is accepted."""
    choices: tuple[str, ...]
    """The accepted values of an option that is text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutInfo:
    """One accepted combination of shapes, each a list of axes separated by spaces.

    A letter is an axis of the same length everywhere, `*S` any number of axes,
    `#*S` anything that torch can broadcast to `*S`; behind `#1 ` one axis may have length 1 and
    broadcasts; an empty text is a scalar.
    """

    name: str
    """The name, such as `batched`."""
    inputs: Mapping[str, str]
    """The shape of each input, by name, such as `{"input": "N C *D"}`."""
    values: str
    """The shape of the values, the result of `reduction="none"`."""
    dtypes: Mapping[str, tuple[str, ...]]
    """The accepted dtypes of each input in this layout, by name."""
    nonempty_axes: tuple[str, ...]
    """The axes whose length may not be 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDifference:
    """A case in which the engines give different numbers, rounding aside."""

    where: str
    """The case, such as "`target` 0, `input` -inf"."""
    result: str
    """The number that differs: `loss`, or `gradient of` and an input."""
    auto: str
    """It with `engine="auto"`, the limit of the formula, as text."""
    autograd: str
    """It with `engine="autograd"`, torch's own, as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInfo:
    """The description of one loss."""

    name: str
    """The name to evaluate it by."""
    kind: str
    """`loss` or `activation`."""
    summary: str
    """One sentence."""
    description: str
    """The full description."""
    inputs: tuple[InputInfo, ...]
    """The inputs, in torch's order."""
    options: tuple[OptionInfo, ...]
    """The options, in torch's order."""
    layouts: tuple[LayoutInfo, ...]
    """The accepted combinations of shapes; an evaluation must match one."""
    reductions: tuple[str, ...]
    """The accepted reductions."""
    default_reduction: str
    """The reduction taken when none is given."""
    mean_denominator: str
    """How the denominator of the mean is formed, in one sentence."""
    separable: bool
    """Whether a batch may be cut into pieces whose numerators and denominators add up."""
    closed_form: bool
    """Whether `engine="auto"` may take a closed form."""
    source: str
    """The function this is, such as `torch.nn.functional.cross_entropy`."""
    engine_differences: tuple[EngineDifference, ...] = ()
    """Where `engine="auto"` and `engine="autograd"` give different numbers."""
    result_inputs: tuple[str, ...] = ()
    """The inputs whose promoted floating type is that of the loss; empty: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a server."""

    max_message_bytes: int
    """The largest request, in bytes."""
    max_rank: int
    """The largest number of axes of a tensor."""
    max_evaluations_per_call: int
    """The most evaluations of one `evaluate_many`."""
    max_in_flight_per_stream: int
    """The most unanswered evaluations of one stream."""
    memory_budget_bytes: int
    """The memory that all evaluations together may take, in bytes."""
    preferred_chunk_bytes: int
    """The best size of one chunk of a chunked call, in bytes."""
    resident_quota_bytes: int
    """The most bytes of resident tensors per tenant; 0 when none are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transports:
    """The transports by which tensors may reach a server."""

    chunked: bool
    """Whether chunked calls are served."""
    resident_tensors: bool
    """Whether resident tensors are kept."""
    region_socket: str
    """The unix socket that hands out same-host regions; empty when there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """The versions, device, limits and transports of a server."""

    server_version: str
    """The version of the server."""
    torch_version: str
    """The version of torch."""
    device: str
    """The device that computes: `cpu`, `cuda:0`."""
    device_name: str
    """The device's own name; empty for a CPU."""
    threads: int
    """How many threads torch uses on the CPU."""
    worker_id: str
    """Identifies the server's process until it ends."""
    limits: Limits
    """The limits of the server."""
    transports: Transports
    """The transports by which tensors may reach it."""


def read_losses(message: loss_service_pb2.ListLossesResponse) -> list[LossInfo]:
    """Read the catalogue, ordered by name."""
    return [_read_loss(info) for info in message.losses]


def _read_loss(info: loss_info_pb2.LossInfo) -> LossInfo:
    return LossInfo(
        name=info.name,
        kind=_KINDS.get(info.kind, f"kind_{info.kind}"),
        summary=info.summary,
        description=info.description,
        inputs=tuple(map(_read_input, info.inputs)),
        options=tuple(map(_read_option, info.options)),
        layouts=tuple(_read_layout(layout, info.inputs) for layout in info.layouts),
        reductions=tuple(map(_reduction_name, info.reductions)),
        default_reduction=_reduction_name(info.default_reduction),
        mean_denominator=info.mean_denominator,
        separable=info.separable,
        closed_form=info.closed_form,
        source=info.source,
        engine_differences=tuple(map(_read_difference, info.engine_differences)),
        result_inputs=tuple(info.result_inputs),
    )


def _read_difference(info: loss_info_pb2.EngineDifference) -> EngineDifference:
    return EngineDifference(
        where=info.where, result=info.result, auto=info.auto, autograd=info.autograd
    )


def _reduction_name(number: int) -> str:
    return _REDUCTIONS.get(number, f"reduction_{number}")


def _read_input(info: loss_info_pb2.InputInfo) -> InputInfo:
    return InputInfo(
        name=info.name,
        description=info.description,
        dtypes=tuple(map(dtype_name, info.data_types)),
        required=info.required,
        differentiable_in=tuple(info.differentiable_in),
        factored_in=tuple(info.factored_in),
        value_rules=tuple(info.value_rules),
        value_hints=tuple(info.value_hints),
        promotes=info.promotes,
        promotes_in=tuple(info.promotes_in),
        fixed_for_gradients=tuple(info.fixed_for_gradients),
    )


def _read_layout(
    layout: loss_info_pb2.LayoutInfo, inputs: Iterable[loss_info_pb2.InputInfo]
) -> LayoutInfo:
    # A map of the wire has no order; the inputs have torch's.
    shapes = {each.name: layout.inputs[each.name] for each in inputs if each.name in layout.inputs}
    return LayoutInfo(
        name=layout.name,
        inputs=shapes,
        values=layout.values,
        dtypes={
            name: tuple(map(dtype_name, layout.data_types[name].data_types)) for name in shapes
        },
        nonempty_axes=tuple(layout.nonempty_axes),
    )


def _read_option(info: loss_info_pb2.OptionInfo) -> OptionInfo:
    return OptionInfo(
        name=info.name,
        description=info.description,
        type=_OPTION_TYPES.get(info.type),
        default=decode_option(info.default_value),
        required=info.required,
        range=info.range,
        choices=tuple(info.choices),
    )


def read_server_info(message: loss_service_pb2.GetServerInfoResponse) -> ServerInfo:
    """Read the description of a server."""
    limits, transports = message.limits, message.transports
    return ServerInfo(
        server_version=message.server_version,
        torch_version=message.torch_version,
        device=message.device,
        device_name=message.device_name,
        threads=message.threads,
        worker_id=message.worker_id,
        limits=Limits(**{name: getattr(limits, name) for name in Limits.__slots__}),
        transports=Transports(**{name: getattr(transports, name) for name in Transports.__slots__}),
    )
