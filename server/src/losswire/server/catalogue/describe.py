"""The catalogue in terms of the contract: a `LossInfo` of each record."""

from collections.abc import Sequence

from losswire.server.catalogue.engine_difference import text_of
from losswire.server.catalogue.record import Kind, LossRecord, Reduction
from losswire.v1 import evaluation_pb2, loss_info_pb2
from losswire.wire import BY_NAME, encode_option

_KINDS = {
    Kind.LOSS: loss_info_pb2.LOSS_KIND_LOSS,
    Kind.ACTIVATION: loss_info_pb2.LOSS_KIND_ACTIVATION,
}
_OPTION_TYPES = {
    float: loss_info_pb2.OPTION_TYPE_DOUBLE,
    int: loss_info_pb2.OPTION_TYPE_INT64,
    bool: loss_info_pb2.OPTION_TYPE_BOOL,
    str: loss_info_pb2.OPTION_TYPE_STRING,
}
_REDUCTIONS = {
    Reduction.NONE: evaluation_pb2.REDUCTION_NONE,
    Reduction.MEAN: evaluation_pb2.REDUCTION_MEAN,
    Reduction.SUM: evaluation_pb2.REDUCTION_SUM,
    Reduction.BATCHMEAN: evaluation_pb2.REDUCTION_BATCHMEAN,
}


def describe(record: LossRecord) -> loss_info_pb2.LossInfo:
    """Return the complete description of a loss."""
    return loss_info_pb2.LossInfo(
        name=record.name,
        kind=_KINDS[record.kind],
        summary=record.summary,
        description=record.description,
        inputs=[_describe_input(record, name) for name in record.inputs],
        options=[_describe_option(record, name) for name in record.options],
        layouts=[
            loss_info_pb2.LayoutInfo(
                name=each.name,
                inputs={name: spec.axes.text for name, spec in each.inputs.items()},
                values=each.values.text,
                data_types={name: _types(spec.dtypes) for name, spec in each.inputs.items()},
                nonempty_axes=each.nonempty,
            )
            for each in record.layouts
        ],
        reductions=[_REDUCTIONS[each] for each in record.reductions],
        default_reduction=_REDUCTIONS[record.default_reduction],
        mean_denominator=record.mean_denominator,
        separable=record.separable,
        closed_form=bool(record.closed_forms or record.tiled_forms),
        source=record.source,
        engine_differences=[
            loss_info_pb2.EngineDifference(
                where=each.where,
                result=each.result,
                auto=text_of(each.auto),
                autograd=text_of(each.autograd),
            )
            for each in record.differences
        ],
        result_inputs=record.result_inputs,
    )


def _describe_input(record: LossRecord, name: str) -> loss_info_pb2.InputInfo:
    described = record.inputs[name]
    specs = [each.inputs[name] for each in record.layouts if name in each.inputs]
    dtypes = dict.fromkeys(dtype for spec in specs for dtype in spec.dtypes)
    rules = {
        rule.rule: rule for rule in (described.rule_for(is_float=each.is_float) for each in specs)
    }
    return loss_info_pb2.InputInfo(
        name=name,
        description=described.meaning,
        data_types=[BY_NAME[dtype].data_type for dtype in dtypes],
        required=name in record.required_inputs,
        differentiable_in=record.differentiable_in(name),
        value_rules=[text for text, rule in rules.items() if text and rule.enforced],
        value_hints=[text for text, rule in rules.items() if text and not rule.enforced],
        promotes=bool(described.promotes),
        factored_in=record.factored_in(name),
        promotes_in=[
            each.name
            for each in record.layouts
            if name in each.inputs and described.promotes_in(each.name)
        ],
        fixed_for_gradients=described.fixed_for_gradients,
    )


def _types(dtypes: Sequence[str]) -> loss_info_pb2.DataTypeList:
    return loss_info_pb2.DataTypeList(data_types=[BY_NAME[each].data_type for each in dtypes])


def _describe_option(record: LossRecord, name: str) -> loss_info_pb2.OptionInfo:
    option, field = record.options[name], record.option_fields[name]
    return loss_info_pb2.OptionInfo(
        name=name,
        description=option.meaning,
        type=_OPTION_TYPES[field.type],
        default_value=None if field.default is None else encode_option(field.default),
        required=field.required,
        range="; ".join(each.rule for each in option.rules),
        choices=option.choices,
    )
