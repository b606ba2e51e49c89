"""Numbers that JSON lacks: they are texts, as in protobuf's JSON."""

import math
from collections.abc import Mapping
from typing import Any, Final

NONFINITE: Final[Mapping[str, float]] = {
    "NaN": math.nan,
    "Infinity": math.inf,
    "-Infinity": -math.inf,
}
"""The texts that stand for the numbers which JSON lacks, in both directions."""


def json_number(value: float) -> float | str:
    """Return a number as JSON can hold it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def json_values(content: Any) -> Any:  # noqa: ANN401 (whatever JSON can hold)
    """Return a value in which every float has passed `json_number`, at any depth."""
    if isinstance(content, float):
        return json_number(content)
    if isinstance(content, dict):
        return {name: json_values(each) for name, each in content.items()}
    if isinstance(content, list | tuple):
        return [json_values(each) for each in content]
    return content
