"""What a summary says of its rows, a second time: from the rows, in exact arithmetic.

Numbers stay fractions until a root or the normal law is needed, which mpmath has with 60 digits.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from math import inf, isnan, nan
from typing import Any

from mpmath import mp, mpf

from tests.conformance.summaries.definition import (
    Plan,
    Row,
    bucket_index,
    cluster_sums,
    joint_rows,
    labels_of,
    terms,
)

LEVELS = ("0.9", "0.95", "0.99")
QUANTILES = ("0", "0.01", "0.5", "0.99", "1")
_DIGITS = 60

Json = Any
"""What JSON holds."""


def number(value: Any) -> Json:  # noqa: ANN401 (mpmath has no types)
    """Write a number as the nearest float64: decimal, and exactly."""
    if isinstance(value, Fraction):
        value = float(value)
    found = float(value)
    return {"decimal": repr(found), "hex": found.hex()}


def figures(plan: Plan, rows: Sequence[Row], scale: int) -> Json:
    """Return what is said of all rows, of the differences and of the slices."""
    with mp.workdps(_DIGITS):
        return {
            "total": [_statistics(plan, rows, each, scale) for each in range(plan.width)],
            "differences": [
                _difference(plan, rows, a, b)
                for a in range(plan.width)
                for b in range(plan.width)
                if a < b
            ],
            "tables": [
                _lifts(plan, rows, columns, candidate)
                for columns in plan.tables
                for candidate in range(plan.width)
            ],
        }


def _finite(rows: Iterable[Row], candidate: int) -> list[Row]:
    return [row for row in rows if row.is_finite(candidate)]


def _mean(rows: Iterable[Row], candidate: int) -> Fraction | float:
    """Return the mean as a reduction gives it: with the rows that are not finite."""
    losses = [row.values[candidate] for row in rows if row.takes_part(candidate)]
    if any(map(isnan, losses)) or (inf in losses and -inf in losses):
        return nan
    return inf if inf in losses else -inf if -inf in losses else _finite_mean(rows, candidate)


def _finite_mean(rows: Iterable[Row], candidate: int) -> Fraction | float:
    finite = _finite(rows, candidate)
    below = sum((row.denominator(candidate) for row in finite), Fraction(0))
    if not below:
        return nan
    return sum((row.numerator(candidate) for row in finite), Fraction(0)) / below


def _observations(plan: Plan, rows: Sequence[Row], candidates: Sequence[int]) -> list[Any]:
    """Return numerators and denominators of rows, or of clusters, of some candidates."""
    origins = [Fraction(0)] * plan.width
    if not plan.clustered:
        used = (
            _finite(rows, candidates[0]) if len(candidates) == 1 else joint_rows(rows, plan.width)
        )
        return [terms(row, origins, candidates) for row in used]
    sums = cluster_sums(rows, plan.width, origins).values()
    return [[each[2 * at + part] for at in candidates for part in (0, 1)] for each in sums]


def _influences(found: Sequence[Sequence[Fraction]], at: int = 0) -> list[Fraction]:
    """Return how much each observation moves a mean: (n - R d) / B."""
    above = sum((each[2 * at] for each in found), Fraction(0))
    below = sum((each[2 * at + 1] for each in found), Fraction(0))
    return [(each[2 * at] - above / below * each[2 * at + 1]) / below for each in found]


def _error(influences: Sequence[Fraction]) -> Any:  # noqa: ANN401 (mpmath has no types)
    """Return sqrt(n / (n - 1) x the sum of squares)."""
    count = len(influences)
    if count < 2:
        return nan
    return _root(sum((each * each for each in influences), Fraction(0)) * count / (count - 1))


def _root(value: Fraction) -> Any:  # noqa: ANN401 (mpmath has no types)
    return mp.sqrt(_mpf(value))


def _mpf(value: Fraction | float) -> Any:  # noqa: ANN401 (mpmath has no types)
    found = Fraction(value)
    return mpf(found.numerator) / found.denominator


def _p_value(mean: Fraction | float, error: Any) -> Any:  # noqa: ANN401 (mpmath has no types)
    """Return the two-sided p value of the normal law."""
    if isnan(mean) or mp.isnan(error):
        return nan
    if not error:
        return 0.0 if mean else 1.0
    return mp.erfc(abs(_mpf(mean) / error) / mp.sqrt(2))


def _intervals(mean: Fraction | float, error: Any) -> Json:  # noqa: ANN401
    """Return the bounds by level."""
    found = {}
    for level in LEVELS:
        if isnan(mean) or mean in (inf, -inf) or mp.isnan(error):
            bounds: list[Any] = [nan, nan]
        else:
            half = mp.sqrt(2) * mp.erfinv(mpf(level)) * error
            bounds = [_mpf(mean) - half, _mpf(mean) + half]
        found[level] = [number(each) for each in bounds]
    return found


def _statistics(plan: Plan, rows: Sequence[Row], candidate: int, scale: int) -> Json:
    mean = _mean(rows, candidate)
    error = _standard_error(plan, rows, candidate)
    finite = _finite(rows, candidate)
    return {
        "mean": number(mean),
        "finite_mean": number(_finite_mean(rows, candidate)),
        "standard_error": number(error),
        "intervals": _intervals(mean, error),
        "std": number(_std(finite, candidate)),
        "quantiles": {
            each: number(_quantile(finite, candidate, Fraction(each), scale)) for each in QUANTILES
        },
    }


def _standard_error(plan: Plan, rows: Sequence[Row], candidate: int) -> Any:  # noqa: ANN401
    mean = _mean(rows, candidate)
    if isnan(mean) or mean in (inf, -inf):
        return nan
    return _error(_influences(_observations(plan, rows, [candidate])))


def _std(finite: Sequence[Row], candidate: int) -> Any:  # noqa: ANN401 (mpmath has no types)
    count = len(finite)
    if count < 2:
        return nan
    weight = sum((Fraction(row.weight) for row in finite), Fraction(0))
    pairs = [(Fraction(row.values[candidate]), Fraction(row.weight)) for row in finite]
    mean = sum((v * w for v, w in pairs), Fraction(0)) / weight
    square = sum((w * (v - mean) ** 2 for v, w in pairs), Fraction(0))
    return _root(square / weight * count / (count - 1))


def _quantile(finite: Sequence[Row], candidate: int, share: Fraction, scale: int) -> Any:  # noqa: ANN401
    """Return what represents the bucket of the smallest value with `share` of the weight."""
    if not finite:
        return nan
    ordered = sorted(finite, key=lambda row: row.values[candidate])
    low, high = ordered[0].values[candidate], ordered[-1].values[candidate]
    if share in (0, 1):
        return high if share else low
    weights = list(accumulate(Fraction(row.weight) for row in ordered))
    at = next(at for at, each in enumerate(weights) if each >= share * weights[-1])
    value = ordered[at].values[candidate]
    if value == 0:
        return 0.0
    base = mpf(2) ** (mpf(2) ** -scale)
    middle = base ** bucket_index(abs(value), scale) * 2 * base / (1 + base)
    return min(max(middle if value > 0 else -middle, low), high)


def _difference(plan: Plan, rows: Sequence[Row], first: int, second: int) -> Json:
    left, right = _mean(rows, first), _mean(rows, second)
    mean = left - right
    error: Any = nan
    if not isnan(mean) and mean not in (inf, -inf):
        found = _observations(plan, rows, [first, second])
        both = zip(_influences(found, 0), _influences(found, 1), strict=True)
        error = _error([a - b for a, b in both])
    return {
        "first": plan.candidates[first],
        "second": plan.candidates[second],
        "mean": number(mean),
        "standard_error": number(error),
        "intervals": _intervals(mean, error),
        "p_value": number(_p_value(mean, error)),
    }


def _lifts(plan: Plan, rows: Sequence[Row], columns: tuple[str, ...], candidate: int) -> Json:
    """Return the mean of each slice of a table and its lift, with Holm's correction."""
    found: list[dict[str, Any]] = []
    p_values: list[Any] = []
    for labels in sorted({labels_of(row, columns) for row in rows}):
        inside = [row for row in rows if labels_of(row, columns) == labels]
        mean = _mean(inside, candidate)
        lift = mean - _mean(rows, candidate)
        error = _lift_error(plan, rows, inside, candidate)
        p_values.append(_p_value(lift, error))
        found.append(
            {
                "labels": list(labels),
                "mean": number(mean),
                "standard_error": number(_standard_error(plan, inside, candidate)),
                "lift": number(lift),
                "lift_standard_error": number(error),
                "p_value": number(p_values[-1]),
            }
        )
    for entry, adjusted in zip(found, _holm(p_values), strict=True):
        entry["p_adjusted"] = number(adjusted)
    return {"columns": list(columns), "candidate": candidate, "slices": found}


def _lift_error(plan: Plan, rows: Sequence[Row], inside: Sequence[Row], candidate: int) -> Any:  # noqa: ANN401
    """Return the standard error of the lift of a slice, of rows that it is a part of."""
    ours, every = (_standard_error(plan, each, candidate) for each in (inside, rows))
    if mp.isnan(ours) or mp.isnan(every):
        return nan
    if plan.clustered:
        return mp.hypot(ours, every)
    finite = _finite(rows, candidate)
    within = [row for row in finite if any(row is each for each in inside)]
    on_part: Mapping[int, Fraction] = dict(
        zip(
            map(id, within),
            _influences(_observations(plan, within, [candidate])),
            strict=True,
        )
    )
    on_whole = _influences(_observations(plan, finite, [candidate]))
    both = zip(finite, on_whole, strict=True)
    return _error([on_part.get(id(row), Fraction(0)) - each for row, each in both])


def _holm(p_values: Sequence[Any]) -> list[Any]:
    """Return p values corrected for their number, as Holm 1979 does; NaN stays and has no part."""
    known = sorted((each, at) for at, each in enumerate(p_values) if not mp.isnan(each))
    adjusted = list(p_values)
    largest: Any = 0
    for rank, (each, at) in enumerate(known):
        largest = max(largest, min(mpf(1), (len(known) - rank) * each))
        adjusted[at] = largest
    return adjusted
