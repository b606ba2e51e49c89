"""Tables of slices: for pandas and notebooks."""

from collections.abc import Mapping
from typing import Any

from losswire.summaries.figures.slices import SliceTable
from losswire.summaries.figures.statistics import QUANTILES, Statistics


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


def _drawn(slices: SliceTable) -> str:
    """Return a table of slices as a notebook shows it."""
    from losswire.client._report.notebook import slices_fragment  # noqa: PLC0415 - for notebooks

    return slices_fragment(slices.name, slices.loss, slices.by_lift(), slices.whole)


SliceTable.drawing = _drawn
