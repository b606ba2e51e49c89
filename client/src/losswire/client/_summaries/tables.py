"""Figures of summaries as tables: for pandas and notebooks."""

import html
from collections.abc import Mapping
from typing import Any

from losswire.summaries.figures.slices import SliceTable
from losswire.summaries.figures.statistics import QUANTILES, Statistics, warnings

_SHOWN = 10
"""The most slices of a table in a notebook."""


def pandas() -> Any:
    """Import pandas; ImportError that names the extra."""
    try:
        import pandas as pd  # noqa: PLC0415 - an extra
    except ImportError:
        raise ImportError("to_frame needs pandas: pip install 'losswire[pandas]'") from None
    return pd


def frame_of(total: Statistics, slices: Mapping[str, SliceTable], **beside: str) -> Any:
    """Return a DataFrame with a row for the total and each slice; `beside` are first columns."""
    rows = [{**beside, "table": "", "label": "", **_columns(total)}]
    for name, table in slices.items():
        for label, each in table.items():
            rows.append({**beside, "table": name, "label": label, **_columns(each)})
        if table.other is not None:
            rows.append({**beside, "table": name, "label": None, **_columns(table.other)})
    return pandas().DataFrame(rows)


def _columns(of: Statistics) -> dict[str, Any]:
    low, high = of.interval()
    return {
        "count": of.count,
        "ignored_count": of.ignored_count,
        "nan_count": of.nan_count,
        "infinite_count": of.infinite_count,
        "weight_sum": of.weight_sum,
        "mean": of.mean,
        "standard_error": of.standard_error,
        "low": low,
        "high": high,
        "std": of.std,
        "minimum": of.minimum,
        **{f"q{share:g}": of.quantile(share) for share in QUANTILES},
        "maximum": of.maximum,
        "small": of.small,
    }


def html_of(title: str, total: Statistics, slices: Mapping[str, SliceTable]) -> str:
    """Return a small table for notebooks."""
    rows = [_html_row("all rows", total)]
    for name, table in slices.items():
        shown = list(table)[:_SHOWN]
        rows += [_html_row(f"{name} = {label}", table[label]) for label in shown]
        if len(table) > _SHOWN:
            text = html.escape(f"{name}: {len(table) - _SHOWN} more")
            rows.append(f"<tr><td>{text}</td></tr>")
    notes = "; ".join(warnings(total))
    caption = html.escape(f"{title}: {notes}" if notes else title)
    names = ("", "rows", "mean", "95 %", "std", "median", "max")
    head = "".join(f"<th>{each}</th>" for each in names)
    return f"<table><caption>{caption}</caption><tr>{head}</tr>{''.join(rows)}</table>"


def _html_row(name: str, of: Statistics) -> str:
    low, high = of.interval()
    maximum = "" if of.maximum is None else f"{of.maximum:.6g}"
    cells = (
        html.escape(name),
        f"{of.count:,}",
        f"{of.mean:.6g}",
        f"{low:.6g} to {high:.6g}",
        f"{of.std:.4g}",
        f"{of.quantile(0.5):.4g}",
        maximum,
    )
    return f"<tr>{''.join(f'<td>{each}</td>' for each in cells)}</tr>"
