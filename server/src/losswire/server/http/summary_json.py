"""A summary or a comparison as a page needs it: the SDK's `to_dict`, and what is drawn of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from losswire.server.errors import InvalidEvaluationError
from losswire.summaries import bucket_bounds
from losswire.summaries.figures import numbers, words
from losswire.summaries.figures.candidates import CandidateStatistics
from losswire.summaries.figures.difference import Difference, SliceDifference
from losswire.summaries.figures.documents import candidate_dict, differences, facts, pair_dict
from losswire.summaries.figures.slices import Lift
from losswire.summaries.figures.statistics import warnings
from losswire.v1 import summary_pb2
from losswire.wire import Violation, json_values


def summary_json(message: summary_pb2.LossSummary) -> dict[str, Any]:
    """Return a summary as JSON; InvalidEvaluationError for sums of which no figure follows.

    A comparison has its candidates by name, and their order in `candidate_names`.
    """
    try:
        # Sums that are infinite or NaN are the caller's, and so are the figures that follow.
        with np.errstate(all="ignore"):
            shown = _comparison(message) if message.candidates else _summary(message)
        found: dict[str, Any] = json_values(shown)
    except (ArithmeticError, IndexError, ValueError) as error:
        text = f"no figures follow from it: {error}"
        raise InvalidEvaluationError([Violation("summary", text)]) from None
    return found


def _summary(message: summary_pb2.LossSummary) -> dict[str, Any]:
    of = CandidateStatistics(message, 0)
    lifts = {column: table.by_lift() for column, table in of.slices.items()}
    found = {**facts(message), **_candidate(of, message, 0, lifts)}
    sentence = words.slices_sentence(lifts)
    found["notes"] += [*([sentence] if sentence else []), words.clusters_sentence(message)]
    return found


def _comparison(message: summary_pb2.LossSummary) -> dict[str, Any]:
    found = {
        **facts(message),
        "candidate_names": list(message.candidates),
        "candidates": {},
        "differences": [_difference(each) for each in differences(message)],
    }
    for position, name in enumerate(message.candidates):
        of = CandidateStatistics(message, position)
        lifts = {column: table.by_lift() for column, table in of.slices.items()}
        found["candidates"][name] = _candidate(of, message, position, lifts)
    found["sentence"] = " ".join(each["sentence"] for each in found["differences"])
    found["notes"] = [words.clusters_sentence(message)]
    return found


def _candidate(
    of: CandidateStatistics,
    message: summary_pb2.LossSummary,
    candidate: int,
    lifts: Mapping[str, Sequence[Lift]],
) -> dict[str, Any]:
    """Return the figures of one candidate, with buckets, sentences and lifts."""
    distribution = message.total.distributions[candidate]
    found = candidate_dict(of)
    found["sentence"] = words.mean_sentence(message.loss, of)
    found["notes"] = [words.rows_sentence(of)]
    if distribution.weight_sum:
        found["notes"].append(words.spread_sentence(of))
    found["histogram"] = histogram_json(distribution.sketch, _extremes(distribution))
    for column, table in lifts.items():
        by_label = {each.label: each for each in table}
        for shown in found["slices"][column]:
            if shown["label"] in by_label:
                _add_lift(shown, by_label[shown["label"]])
    return found


def _add_lift(shown: dict[str, Any], lift: Lift) -> None:
    shown |= {
        "lift": lift.lift,
        "lift_interval": list(lift.interval),
        "p_value": lift.p_value,
        "p_adjusted": lift.p_adjusted,
        "verdict": words.lift_verdict(lift),
    }
    plus = numbers.plus(numbers.within(lift.lift, (lift.interval[1] - lift.interval[0]) / 2))
    where = f"{words.shorten(lift.label, 40)}: mean {words.mean(lift.statistics)}"
    p = f"adjusted {numbers.probability(lift.p_adjusted)}"
    found = f"{where}, {plus} against all rows ({p}): {words.lift_verdict(lift)}"
    shown["sentence"] = f"{'; '.join([found, *warnings(lift.statistics)])}."


def _difference(of: Difference) -> dict[str, Any]:
    """Return the figures of a pair, with buckets and sentences."""
    shown = pair_dict(of)
    shown["most_different"] = shown.pop("worst")
    shown["sentence"] = words.verdict(of, *of.names)
    shown["histogram"] = histogram_json(of.sketch, None)
    for column, found in shown["slices"].items():
        by_label = {each.label: each for each in of.by_slice(column)}
        for each in found:
            if each["label"] in by_label:
                _add_slice_difference(each, by_label[each["label"]])
    return shown


def _add_slice_difference(shown: dict[str, Any], found: SliceDifference) -> None:
    first, second = found.difference.names
    shown["p_adjusted"] = found.p_adjusted
    shown["verdict"] = words.outcome(found.difference, first, second)
    shown["sentence"] = words.verdict(found.difference, first, second)


def _extremes(found: summary_pb2.LossDistribution) -> tuple[float, float] | None:
    return (found.minimum, found.maximum) if found.HasField("minimum") else None


def histogram_json(
    sketch: summary_pb2.LossSketch, extremes: tuple[float, float] | None
) -> Mapping[str, Sequence[float]]:
    """Return the buckets that are not empty, in ascending order; zeros are one without a width.

    `extremes` are the smallest and the largest value, where the outermost buckets end.
    """
    negative = [
        (-high, -low, weight)
        for low, high, weight in _side(sketch, sketch.negative_indices, sketch.negative_weights)
    ]
    zero = [(0.0, 0.0, sketch.zero_weight)] if sketch.zero_weight else []
    buckets = [
        *reversed(negative),
        *zero,
        *_side(sketch, sketch.positive_indices, sketch.positive_weights),
    ]
    least, most = extremes or (-math.inf, math.inf)
    return {
        "low": [min(max(low, least), most) for low, _, _ in buckets],
        "high": [min(max(high, least), most) for _, high, _ in buckets],
        "weight": [weight for _, _, weight in buckets],
    }


def _side(
    sketch: summary_pb2.LossSketch, indices: Sequence[int], weights: Sequence[float]
) -> list[tuple[float, float, float]]:
    return [
        (*bucket_bounds(index, sketch.scale), weight)
        for index, weight in zip(indices, weights, strict=True)
    ]
