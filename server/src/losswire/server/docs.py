"""Writes docs/losses.md from the records of the losses: `python -m losswire.server.docs PATH`.

The page shows the same `LossInfo` messages that ListLosses returns.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from losswire.server.catalogue.describe import describe
from losswire.server.catalogue.layouts import FLOATS, INTEGERS
from losswire.server.catalogue.record import LossRecord
from losswire.server.losses import builtin_registry
from losswire.v1 import evaluation_pb2, loss_info_pb2
from losswire.wire import DATA_TYPES, OptionScalar, decode_option

_INTRODUCTION: Final = """\
# Losses

Every loss and activation of the server. This page is generated from the same records that
`ListLosses` answers from (`make docs`); do not edit it. [protocol.md](protocol.md)
describes the messages of an evaluation, [accuracy.md](accuracy.md) the rounding errors of results.

## How to read the tables

**Shapes** are lists of axes, outermost first. An evaluation must match one row of the loss's table.

| Written | Means |
|---|---|
| `N`, `C`, ... | one axis, of the same length wherever the letter occurs |
| `*S` | any number of axes, also none, the same wherever it occurs |
| `#*S` | any shape that broadcasts to `*S` |
| `#1 *S`, `#1 *S K` | the shape behind `#1`, where one axis may have length 1 and broadcasts |
| `2` | an axis of that length |
| scalar | no axes |
| - | the input is not accepted in this layout |

The column "values" is the shape of the loss with reduction `none`, and of a full `sample_weight`.

**Data types**: `floats` are float16, bfloat16, float32 and float64; `integers` are uint8, int8,
int16, int32 and int64.

**Gradient** says whether a gradient can be asked for: always, never, or in the layouts named.

**Values must be** says what is checked: an evaluation with other values is INVALID_ARGUMENT.
**Values are meant to be** says what the formula is for: others are accepted, with the results that
they have in torch.

**Accepted** is the range of an option. A square bracket includes the bound, also an infinite one; a
round bracket excludes it; NaN is in no range. With "-", every value of the type is accepted, NaN
and infinity too.

All inputs have one floating type, except those marked as of any floating type, which torch
promotes. A scalar does not promote the arrays beside it. The loss has the type to which all inputs
promote, or those that are named under "Type of the loss"; in place of half precision it has
float32, and with `compute_data_type` that type.

## The two engines

`ENGINE_AUTO` gives what the formula says, and its rms errors are never larger than torch's, which
[accuracy.md](accuracy.md) shows; a single result may happen to be nearer in either. Limits are
taken: 0 log 0 is 0; a class of probability 0 adds 0, beside a logit of -inf, too; an ignored row,
and one whose sample weight is 0, adds exactly 0 to the loss *and* to every gradient, whatever it
holds.

`ENGINE_AUTOGRAD` is torch's own function with torch's own reduction: the same bits in loss and
gradients with the same torch on the same kind of processor and the same number of threads, NaN
included. Training with it ends at the parameters that torch's module ends at. Class indices in
other types become int64 first. Where a request asks for something that torch does not have
(`sample_weight`, `normalizer`, another type to compute in, a chunked call), torch's function gives
the values and the server reduces them in float64. Half precision is computed in float32 by both
engines unless `compute_data_type` asks for it.

Sum, numerator, denominator and count are float64 sums of the values in both. Rounding aside, the
engines differ in the cases that are listed with each loss; the numbers are those of small examples.
"""
_KINDS: Final = {
    loss_info_pb2.LOSS_KIND_LOSS: "loss",
    loss_info_pb2.LOSS_KIND_ACTIVATION: "activation",
}
_OPTION_TYPES: Final = {
    loss_info_pb2.OPTION_TYPE_DOUBLE: "double",
    loss_info_pb2.OPTION_TYPE_INT64: "int64",
    loss_info_pb2.OPTION_TYPE_BOOL: "bool",
    loss_info_pb2.OPTION_TYPE_STRING: "string",
}
_GROUPS: Final = (("floats", FLOATS), ("integers", INTEGERS))
_NOTHING: Final = "-"


def render(records: Iterable[LossRecord]) -> str:
    """Return the page."""
    infos = [describe(record) for record in records]
    overview = _table(
        ("Name", "Kind", "What it is"),
        ((f"[`{info.name}`](#{info.name})", _KINDS[info.kind], info.summary) for info in infos),
    )
    sections = [_INTRODUCTION, "## Overview\n", overview, *map(_section, infos)]
    return "\n".join(sections)


def _section(info: loss_info_pb2.LossInfo) -> str:
    """Return the section of one loss."""
    parts = [f"## {info.name}", info.description, "**Shapes**", _layouts(info)]
    parts += ["**Inputs**", _table(*_inputs(info))]
    if info.options:
        parts += ["**Options**", _table(*_options(info))]
    if info.engine_differences:
        parts += ["**Where the engines differ**", _table(*_differences(info))]
    return "\n\n".join(part.rstrip("\n") for part in [*parts, "\n".join(_facts(info))]) + "\n"


def _layouts(info: loss_info_pb2.LossInfo) -> str:
    names = [each.name for each in info.inputs]
    rows = (
        (
            f"`{each.name}`",
            *(_shape(each.inputs[name]) if name in each.inputs else _NOTHING for name in names),
            _shape(each.values),
            ", ".join(f"`{axis}`" for axis in each.nonempty_axes) or _NOTHING,
        )
        for each in info.layouts
    )
    titles = ("Layout", *(f"`{name}`" for name in names), "values", "Must not be empty")
    return _table(titles, rows)


def _inputs(
    info: loss_info_pb2.LossInfo,
) -> tuple[Sequence[str], Iterator[Sequence[str]]]:
    titles = (
        "Input",
        "What it is",
        "Required",
        "Data types",
        "Gradient",
        "Values must be",
        "Values are meant to be",
    )
    rows = (
        (
            f"`{each.name}`",
            each.description,
            _yes(flag=each.required),
            _data_types(each) + _promotion(info, each),
            _gradient(info, each),
            "; ".join(each.value_rules) or _NOTHING,
            "; ".join(each.value_hints) or _NOTHING,
        )
        for each in info.inputs
    )
    return titles, rows


def _options(
    info: loss_info_pb2.LossInfo,
) -> tuple[Sequence[str], Iterator[Sequence[str]]]:
    titles = ("Option", "What it does", "Type", "Default", "Accepted")
    rows = (
        (
            f"`{each.name}`",
            each.description,
            _OPTION_TYPES[each.type],
            _default(each),
            each.range or " or ".join(f"`{choice}`" for choice in each.choices) or "any",
        )
        for each in info.options
    )
    return titles, rows


def _differences(
    info: loss_info_pb2.LossInfo,
) -> tuple[Sequence[str], Iterator[Sequence[str]]]:
    rows = (
        (each.where, each.result, f"`{each.auto}`", f"`{each.autograd}`")
        for each in info.engine_differences
    )
    return ("Where", "Result", "`ENGINE_AUTO`", "`ENGINE_AUTOGRAD`"), rows


def _facts(info: loss_info_pb2.LossInfo) -> Iterator[str]:
    if info.kind == loss_info_pb2.LOSS_KIND_LOSS:
        yield f"- Reductions: {_reductions(info)}"
        yield f"- Denominator of the mean: {info.mean_denominator}"
        yield f"- Rows contribute independently: {_yes(flag=info.separable)}"
    if info.result_inputs:
        names = " and ".join(f"`{name}`" for name in info.result_inputs)
        yield f"- Type of the loss: that of {names}"
    if info.closed_form:
        yield "- `ENGINE_AUTO` may take a closed form"
    if factored := _factored(info):
        yield f"- `GRADIENT_FORM_FACTORED` for the gradient of: {factored}"
    yield f"- Source: `{info.source}`"


def _reductions(info: loss_info_pb2.LossInfo) -> str:
    names = {
        each: evaluation_pb2.Reduction.Name(each).removeprefix("REDUCTION_").lower()
        for each in info.reductions
    }
    return ", ".join(
        f"{name} (default)" if each == info.default_reduction and len(names) > 1 else name
        for each, name in names.items()
    )


def _shape(text: str) -> str:
    return f"`{text}`" if text else "scalar"


def _data_types(described: loss_info_pb2.InputInfo) -> str:
    """List the data types, a complete group by its name."""
    names = [DATA_TYPES[each].name for each in described.data_types]
    found: list[str] = []
    for group, members in _GROUPS:
        if set(members) <= set(names):
            found.append(group)
            names = [name for name in names if name not in members]
    return ", ".join([*found, *names])


def _promotion(info: loss_info_pb2.LossInfo, described: loss_info_pb2.InputInfo) -> str:
    """Say where the floating type of an input may differ from that of the others."""
    if not described.promotes:
        return ""
    where = [each.name for each in info.layouts if described.name in each.inputs]
    parts = ["any floating type"]
    if list(described.promotes_in) != where:
        parts.append("in " + ", ".join(f"`{name}`" for name in described.promotes_in))
    if described.fixed_for_gradients:
        fixed = " and ".join(f"`{name}`" for name in described.fixed_for_gradients)
        parts.append(f"but for the gradients of {fixed}")
    return f" ({' '.join(parts)})"


def _gradient(info: loss_info_pb2.LossInfo, described: loss_info_pb2.InputInfo) -> str:
    where = [each.name for each in info.layouts if described.name in each.inputs]
    if list(described.differentiable_in) == where:
        return "yes"
    return ", ".join(f"`{name}`" for name in described.differentiable_in) or "no"


def _factored(info: loss_info_pb2.LossInfo) -> str:
    """Name the inputs whose gradients can be factored, with the layouts where not in all."""
    layouts = [each.name for each in info.layouts]
    return ", ".join(
        f"`{each.name}`"
        if list(each.factored_in) == layouts
        else f"`{each.name}` (" + ", ".join(f"`{name}`" for name in each.factored_in) + ")"
        for each in info.inputs
        if each.factored_in
    )


def _default(option: loss_info_pb2.OptionInfo) -> str:
    if option.required:
        return "required"
    value = decode_option(option.default_value)
    return "none" if value is None else f"`{_literal(value)}`"


def _literal(value: OptionScalar) -> str:
    """Return a value as in JSON, without quotes around text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _yes(*, flag: bool) -> str:
    return "yes" if flag else "no"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar inside of a cell, which would end it, is escaped."""
    lines = [titles, ["---"] * len(titles), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or with --check compare it; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m losswire.server.docs", description="Writes docs/losses.md."
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="where the page is")
    parser.add_argument("--check", action="store_true", help="only tell whether it is up to date")
    options = parser.parse_args(arguments)
    path: Path = options.path
    page = render(builtin_registry())
    if not options.check:
        path.write_text(page, encoding="utf-8")
        return 0
    if path.is_file() and path.read_text(encoding="utf-8") == page:
        return 0
    print(f"{path} is not up to date; run `make docs`", file=sys.stderr)  # noqa: T201 (a command line prints)
    return 1


if __name__ == "__main__":
    sys.exit(main())
