"""The vectors of summaries are up to date, can fail, and hold for losswire.summaries."""

import pytest
from google.protobuf import text_format
from tools.make_summary_conformance import FOLDER, build, present

from losswire.v1 import summary_pb2
from tests.conformance.summaries.compare import differences
from tests.conformance.summaries.replay import (
    Entry,
    entries,
    summary,
    wrong_buckets,
    wrong_figures,
    wrong_merge,
    wrong_refusal,
)

MERGES = entries("merges")
REFUSALS = entries("refusals")
_NAMES = [each["name"] for each in MERGES]


def test_files_are_up_to_date() -> None:
    """The files are what `make conformance` would write now, and few enough bytes to fetch."""
    fresh = build()
    assert present() == sorted(fresh)
    for name, content in fresh.items():
        assert (FOLDER / name).read_bytes() == content, f"{name}: run make conformance"
    assert sum(map(len, fresh.values())) < 600_000


def test_bucket_indices() -> None:
    """Each index is the one of the definition; both files say the same."""
    assert wrong_buckets() == []


@pytest.mark.parametrize("entry", MERGES, ids=_NAMES)
def test_merge(entry: Entry) -> None:
    """The merged summary is that of all rows."""
    assert wrong_merge(entry) == []
    assert wrong_merge({**entry, "inputs": entry["inputs"][::-1]}) == []


@pytest.mark.parametrize("entry", MERGES, ids=_NAMES)
def test_figures(entry: Entry) -> None:
    """Means, intervals, quantiles, differences and lifts are those of the rows."""
    assert wrong_figures(entry) == []


@pytest.mark.parametrize("entry", REFUSALS, ids=[each["name"] for each in REFUSALS])
def test_refusal(entry: Entry) -> None:
    """What does not fit is refused, and named."""
    assert wrong_refusal(entry) == []


@pytest.mark.parametrize("entry", MERGES, ids=_NAMES)
def test_text_and_bytes_are_the_same_message(entry: Entry) -> None:
    """The text form of each message parses to the bytes beside it."""
    for stem in (*entry["inputs"], entry["merged"]):
        parsed = summary_pb2.LossSummary()
        text_format.Parse((FOLDER / f"vectors/{stem}.textproto").read_text(), parsed)
        assert parsed.SerializeToString(deterministic=True) == summary(stem).SerializeToString(
            deterministic=True
        )


@pytest.mark.parametrize("entry", MERGES, ids=_NAMES)
def test_a_merge_without_a_part_can_fail(entry: Entry) -> None:
    """Leaving out a shard with rows does not pass."""
    rows = [each for each in entry["inputs"] if summary(each).included]
    assert wrong_merge({**entry, "inputs": rows[:1]}) != []


def _double_products(message: summary_pb2.LossSummary) -> None:
    message.total.distributions[0].terms.products[0] *= 1 + 1e-9


def _move_values(message: summary_pb2.LossSummary) -> None:
    message.total.distributions[0].values.means[0] += 1e-9


def _double_weight(message: summary_pb2.LossSummary) -> None:
    message.total.distributions[0].sketch.positive_weights[0] *= 2


def _change_sum(message: summary_pb2.LossSummary) -> None:
    message.total.distributions[0].sum *= 1 + 1e-9


def _change_joint(message: summary_pb2.LossSummary) -> None:
    message.total.joint.products[3] *= 1 + 1e-9


@pytest.mark.parametrize(
    "change", [_double_products, _move_values, _double_weight, _change_sum, _change_joint]
)
def test_a_wrong_sum_does_not_pass(change: object) -> None:
    """The comparison sees a change in the ninth digit."""
    wanted = summary("two_candidates.merged")
    wrong = summary("two_candidates.merged")
    change(wrong)  # type: ignore[operator]
    assert list(differences(wanted, wanted)) == []
    assert list(differences(wrong, wanted)) != []


def test_another_origin_passes() -> None:
    """Moments that are measured from another origin are the same moments."""
    wanted, moved = summary("class_weights.merged"), summary("class_weights.merged")
    found = moved.total.distributions[0]
    step, (above, below) = 0.5, found.terms.means
    found.origin -= step
    found.values.means[0] += step
    found.terms.means[:] = [above + step * below, below]
    n_n, n_d, d_d = found.terms.products
    found.terms.products[:] = [n_n + 2 * step * n_d + step * step * d_d, n_d + step * d_d, d_d]
    assert list(differences(moved, wanted)) == []
