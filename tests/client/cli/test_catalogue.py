"""`losswire losses` and `losswire describe`: what the server lists, readably and as JSON."""

import json

import pytest

from losswire.client import Client
from losswire.server.losses import builtin_registry
from tests.client.cli.conftest import Run

NAMES = [record.name for record in builtin_registry()]


def test_the_table_has_a_line_for_each_loss(losswire: Run) -> None:
    """Names are in order, inputs in brackets are optional, and columns are aligned."""
    ran = losswire("losses")
    head, *lines = ran.out.splitlines()
    assert (ran.status, ran.err) == (0, "")
    assert head.split() == ["NAME", "INPUTS", "OPTIONS", "REDUCTIONS", "SUMMARY"]
    assert [line.split()[0] for line in lines] == NAMES
    [line] = [line for line in lines if line.startswith("kl_div ")]
    assert line[head.index("INPUTS") :].startswith("input, target  ")
    assert line[head.index("OPTIONS") :].startswith("log_target  ")
    assert line[head.index("REDUCTIONS") :].startswith("none, mean, sum, batchmean")
    [line] = [line for line in lines if line.startswith("mse_loss ")]
    assert line[head.index("INPUTS") :].startswith("input, target, [weight]  ")


def test_json_holds_the_whole_catalogue(losswire: Run) -> None:
    """Every loss with its inputs, options with their types, and layouts."""
    losses = {each["name"]: each for each in json.loads(losswire("losses", "--json").out)}
    assert list(losses) == NAMES
    options = {each["name"]: each for each in losses["cross_entropy"]["options"]}
    assert options["label_smoothing"]["type"] == "double"
    assert options["ignore_index"]["default"] == -100
    assert losses["cross_entropy"]["inputs"][2]["required"] is False
    assert (
        json.loads(losswire("describe", "cross_entropy", "--json").out) == losses["cross_entropy"]
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_description_leaves_nothing_out(losswire: Run, server: str, name: str) -> None:
    """Inputs, options, layouts, rules and reductions of a loss are all told."""
    ran = losswire("describe", name)
    assert (ran.status, ran.err) == (0, "")
    with Client(server) as client:
        [info] = [each for each in client.losses() if each.name == name]
    told = " ".join(ran.out.split())
    facts = [info.summary, info.source, info.mean_denominator]
    facts += [f"--{each.name} {each.description}" for each in info.inputs]
    facts += [rule for each in info.inputs for rule in each.value_rules]
    facts += [f"--option {each.name}=... {each.description}" for each in info.options]
    facts += [each.range for each in info.options]
    facts += [choice for each in info.options for choice in each.choices]
    facts += [each.name for each in info.layouts]
    facts += [shape for each in info.layouts for shape in each.inputs.values()]
    facts += [", ".join(info.reductions)] if info.kind == "loss" else []
    assert [fact for fact in facts if fact not in told] == []


def test_an_unknown_loss_is_named_with_its_neighbours(losswire: Run) -> None:
    """The server's suggestion is what is printed."""
    ran = losswire("describe", "huber")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == 'losswire: loss: there is no loss "huber"; did you mean huber_loss?\n'
