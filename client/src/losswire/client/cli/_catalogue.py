"""`losswire losses` and `losswire describe`: the losses of a server."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from losswire.client import InputInfo, LossInfo, OptionInfo
from losswire.client.cli._common import Exit, add_connection, open_client, say, to_json
from losswire.client.cli._request import describe
from losswire.client.cli._table import table

_TYPE_NAMES = {bool: "bool", int: "int64", float: "double", str: "string"}


def add_parser(commands: Any) -> None:
    """Add both commands."""
    listing = commands.add_parser(
        "losses",
        help="list the losses of a server",
        description="List every loss and activation. Inputs in brackets are optional.",
    )
    listing.add_argument("--json", action="store_true", help="print a JSON list, with everything")
    add_connection(listing)
    listing.set_defaults(run=run_losses)
    single = commands.add_parser(
        "describe", help="tell everything about a loss", description="Tell everything about a loss."
    )
    single.add_argument("loss", metavar="LOSS", help="its name; `losswire losses` lists all")
    single.add_argument("--json", action="store_true", help="print a JSON object")
    add_connection(single)
    single.set_defaults(run=run_describe)


def run_losses(arguments: argparse.Namespace) -> Exit:
    """List the losses."""
    with open_client(arguments) as client:
        losses = client.losses()
    if arguments.json:
        say(to_json([_facts(each) for each in losses]))
        return Exit.OK
    rows = [
        (
            each.name,
            ", ".join(one.name if one.required else f"[{one.name}]" for one in each.inputs),
            ", ".join(one.name for one in each.options) or "-",
            ", ".join(each.reductions),
            each.summary,
        )
        for each in losses
    ]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table(("NAME", "INPUTS", "OPTIONS", "REDUCTIONS", "SUMMARY"), rows, ""):
        say(line[:width])
    return Exit.OK


def run_describe(arguments: argparse.Namespace) -> Exit:
    """Describe one loss."""
    with open_client(arguments) as client:
        loss = describe(client, arguments.loss)
    if arguments.json:
        say(to_json(_facts(loss)))
    else:
        for line in _description(loss):
            say(line)
    return Exit.OK


def _facts(loss: LossInfo) -> dict[str, Any]:
    facts = asdict(loss)
    for option, info in zip(facts["options"], loss.options, strict=True):
        option["type"] = _type_name(info)
    return facts


def _description(loss: LossInfo) -> Iterator[str]:
    yield f"{loss.name} ({loss.kind})"
    yield ""
    yield from textwrap.indent(loss.description, "  ").splitlines()
    yield ""
    yield "Shapes"
    names = [each.name for each in loss.inputs]
    layouts = [
        (
            each.name,
            *(_shape(each.inputs[name]) if name in each.inputs else "-" for name in names),
            _shape(each.values),
        )
        for each in loss.layouts
    ]
    yield from table(("LAYOUT", *names, "VALUES"), layouts)
    yield ""
    yield "Inputs"
    for info in loss.inputs:
        yield from _item(f"--{info.name}", info.description, _input_facts(loss, info))
    if loss.options:
        yield ""
        yield "Options"
    for option in loss.options:
        yield from _item(f"--option {option.name}=...", option.description, _option_facts(option))
    yield ""
    if loss.mean_denominator:
        yield f"Reductions: {', '.join(loss.reductions)}; default: {loss.default_reduction}"
        yield f"Denominator of the mean: {loss.mean_denominator}"
        yield f"Rows contribute independently: {'yes' if loss.separable else 'no'}"
    if loss.closed_form:
        yield "The engine auto may take a closed form"
    if loss.engine_differences:
        yield ""
        yield "Where the engines differ, rounding aside"
        rows = [
            (each.where, each.result, each.auto, each.autograd) for each in loss.engine_differences
        ]
        yield from table(("WHERE", "RESULT", "AUTO", "AUTOGRAD"), rows)
        yield ""
    yield f"Source: {loss.source}"


def _item(title: str, meaning: str, facts: Iterator[str]) -> Iterator[str]:
    yield f"  {title}"
    for line in (meaning, *facts):
        yield from textwrap.wrap(line, 90, initial_indent="      ", subsequent_indent="        ")


def _input_facts(loss: LossInfo, info: InputInfo) -> Iterator[str]:
    yield "required" if info.required else "optional"
    yield f"types: {', '.join(info.dtypes)}"
    layouts = [each.name for each in loss.layouts if info.name in each.inputs]
    if not info.differentiable_in:
        yield "gradient: no"
    elif set(info.differentiable_in) == set(layouts):
        yield "gradient: yes"
    else:
        yield f"gradient: in {', '.join(info.differentiable_in)}"
    for rule in info.value_rules:
        yield f"values must be: {rule}"
    for hint in info.value_hints:
        yield f"values are meant to be: {hint}"


def _option_facts(info: OptionInfo) -> Iterator[str]:
    default = str(info.default).lower() if isinstance(info.default, bool) else info.default
    given = "required" if info.required else f"default: {'none' if default is None else default}"
    yield f"{_type_name(info)}, {given}"
    accepted = info.range or " or ".join(info.choices)
    if accepted:
        yield f"accepted: {accepted}"


def _type_name(info: OptionInfo) -> str:
    return _TYPE_NAMES[info.type] if info.type else "unknown"


def _shape(text: str) -> str:
    return f"({text})"
