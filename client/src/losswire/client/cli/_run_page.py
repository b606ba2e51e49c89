"""Everything about one run: `losswire runs show`."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from losswire.client.cli._table import interval, number, probability, table
from losswire.summaries import statistics
from losswire.v1 import summary_pb2
from losswire.wire import decode_option

_QUANTILES = (0.5, 0.9, 0.99)
_LEVEL = 0.95


def show_lines(summary: summary_pb2.LossSummary) -> Iterator[str]:
    """Write a summary for people."""
    options = ", ".join(
        f"{name}={decode_option(value)}" for name, value in sorted(summary.options.items())
    )
    yield f"loss      {summary.loss}{f' ({options})' if options else ''}"
    yield ""
    names = list(summary.candidates) or [""]
    facts = [_facts_of(summary.total, index) for index in range(len(names))]
    rows = [(title, *(each[title] for each in facts)) for title in facts[0]]
    yield from table(("", *(name or "all rows" for name in names)), rows, "")
    yield from _differences(summary)
    for each in summary.tables:
        yield ""
        yield from _slices(summary, each)
        if summary.candidates:
            yield ""
            yield from _slice_differences(summary, each)


def show_facts(summary: summary_pb2.LossSummary) -> dict[str, Any]:
    """Return the same for JSON, with numbers as they are."""
    return {
        "options": {name: decode_option(each) for name, each in summary.options.items()},
        "total": _group_facts(summary, summary.total),
        "slices": {",".join(each.columns): _table_facts(summary, each) for each in summary.tables},
    }


def _table_facts(
    summary: summary_pb2.LossSummary, found: summary_pb2.SliceTable
) -> list[dict[str, Any]]:
    facts: list[dict[str, Any]] = [
        {"labels": list(each.labels), **_group_facts(summary, each)} for each in found.slices
    ]
    if found.HasField("other"):
        facts.append({"labels": None, **_group_facts(summary, found.other)})
    return facts


def _group_facts(
    summary: summary_pb2.LossSummary, group: summary_pb2.GroupSummary
) -> dict[str, Any]:
    facts = {}
    for index, name in enumerate(summary.candidates or [""]):
        found, estimate = group.distributions[index], statistics.estimate(group, index)
        facts[name] = {
            "count": found.count,
            "ignored_count": found.ignored_count,
            "nan_count": found.nan_count,
            "infinite_count": statistics.infinite_count(found),
            "mean": estimate.mean,
            "standard_error": estimate.standard_error,
            "interval": estimate.interval(_LEVEL),
            "clustered": estimate.clustered,
            "small": estimate.small,
            "std": statistics.std(found),
        }
    return {"candidates": facts} if summary.candidates else facts[""]


def _facts_of(group: summary_pb2.GroupSummary, index: int) -> dict[str, str]:
    """Return the figures of a candidate, by title."""
    found, estimate = group.distributions[index], statistics.estimate(group, index)
    infinite = statistics.infinite_count(found)
    facts = {
        "rows": str(found.count),
        "ignored": str(found.ignored_count),
        "mean": number(estimate.mean),
        "95 % interval": interval(estimate.interval(_LEVEL)) + _remarks(estimate),
        "std": number(statistics.std(found)),
        "minimum": number(found.minimum) if found.HasField("minimum") else "-",
    }
    for share in _QUANTILES:
        facts[f"quantile {share:g}"] = number(statistics.quantile(found, share))
    facts["maximum"] = number(found.maximum) if found.HasField("maximum") else "-"
    facts["NaN"], facts["infinite"] = str(found.nan_count), str(infinite)
    return facts


def _remarks(estimate: statistics.Estimate) -> str:
    remarks = [f"{estimate.count} clusters"] if estimate.clustered else []
    remarks += ["few: may be too narrow"] if estimate.small else []
    return f" ({', '.join(remarks)})" if remarks else ""


def _differences(summary: summary_pb2.LossSummary) -> Iterator[str]:
    """Write how the candidates of a comparison differ, row by row."""
    names = list(summary.candidates)
    if not names:
        return
    rows = []
    pairs = combinations(range(len(names)), 2)
    for (first, second), pair in zip(pairs, summary.total.pairs, strict=True):
        found = statistics.difference(summary.total, first, second)
        rows.append(
            (
                f"{names[first]} - {names[second]}",
                number(found.mean),
                interval(found.interval(_LEVEL)),
                probability(found.p_value),
                f"{pair.wins} / {pair.ties} / {pair.losses}",
            )
        )
    yield ""
    yield from table(
        ("PAIRED DIFFERENCE", "MEAN", "95 % INTERVAL", "P", "WINS / TIES / LOSSES"), rows, ""
    )


def _slices(summary: summary_pb2.LossSummary, found: summary_pb2.SliceTable) -> Iterator[str]:
    names = list(summary.candidates) or [""]
    titles = [",".join(found.columns), "ROWS"]
    for name in names:
        titles += [f"MEAN {name}".strip(), "95 % INTERVAL"]
    rows = []
    for label, group in _labelled(found):
        row = [label, str(group.distributions[0].count)]
        for index in range(len(names)):
            estimate = statistics.estimate(group, index)
            row += [number(estimate.mean), interval(estimate.interval(_LEVEL))]
        rows.append(row)
    yield from table(titles, rows, "")


def _slice_differences(
    summary: summary_pb2.LossSummary, found: summary_pb2.SliceTable
) -> Iterator[str]:
    """Write how the candidates differ in each slice, row by row."""
    names = list(summary.candidates)
    rows = []
    for first, second in combinations(range(len(names)), 2):
        estimates = [
            (label, statistics.difference(group, first, second))
            for label, group in _labelled(found)
        ]
        adjusted = statistics.holm([each.p_value for _, each in estimates])
        for (label, each), p_value in zip(estimates, adjusted, strict=True):
            rows.append(
                (
                    f"{names[first]} - {names[second]}",
                    label,
                    number(each.mean),
                    interval(each.interval(_LEVEL)),
                    probability(p_value),
                )
            )
    titles = ("PAIRED DIFFERENCE", ",".join(found.columns), "MEAN", "95 % INTERVAL", "P (HOLM)")
    yield from table(titles, rows, "")


def _labelled(found: summary_pb2.SliceTable) -> list[tuple[str, summary_pb2.GroupSummary]]:
    """Return the slices of a table by what people call them."""
    groups = [(", ".join(each.labels), each) for each in found.slices]
    return [*groups, ("(other)", found.other)] if found.HasField("other") else groups
