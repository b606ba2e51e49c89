"""The table of merges that are refused."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from losswire.v1 import evaluation_pb2, summary_pb2
from tests.conformance.summaries.cases import CASES, in_clusters, losses, rows_of
from tests.conformance.summaries.definition import summary


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Summaries that do not merge, the last one not with those before."""

    name: str
    about: str
    first: str
    """The case of whose shards the first is taken."""
    other: summary_pb2.LossSummary
    named: Sequence[str]
    """What the error names."""


def _other(**changes: object) -> summary_pb2.LossSummary:
    """Return a summary of rows 100 to 103, as those of the case `plain` but for some settings."""
    plan = replace(CASES[0].plan, **changes)  # type: ignore[arg-type]
    found = [replace(row, row=100 + row.row) for row in rows_of(losses(13, 4))]
    if plan.clustered:
        found = in_clusters(found, [1, 2], 2)
    if plan.tables:
        found = [replace(row, labels={"country": "DE"}) for row in found]
    if plan.candidates:
        found = [replace(row, values=row.values * 2) for row in found]
    return summary(plan, found)


REFUSALS: Sequence[Refusal] = (
    Refusal(
        name="refused_overlap",
        about="Rows 8 and 9 are in both.",
        first="plain",
        other=summary(CASES[0].plan, CASES[0].rows[8:12]),
        named=["rows 8 to 9", "data"],
    ),
    Refusal(
        name="refused_loss",
        about="Another loss.",
        first="plain",
        other=_other(loss="huber_loss"),
        named=["loss", "smooth_l1_loss", "huber_loss"],
    ),
    Refusal(
        name="refused_options",
        about="Another option.",
        first="plain",
        other=_other(options={"beta": evaluation_pb2.OptionValue(double_value=0.25)}),
        named=["options", "beta"],
    ),
    Refusal(
        name="refused_candidates",
        about="Candidates, and none.",
        first="plain",
        other=_other(candidates=("a", "b")),
        named=["candidates"],
    ),
    Refusal(
        name="refused_tables",
        about="Slices, and none.",
        first="plain",
        other=_other(tables=(("country",),)),
        named=["slices", "country"],
    ),
    Refusal(
        name="refused_scale",
        about="Another accuracy was asked for.",
        first="plain",
        other=_other(scale=5),
        named=["scale", "6", "5"],
    ),
    Refusal(
        name="refused_worst",
        about="Another number of worst rows.",
        first="plain",
        other=_other(worst=3),
        named=["worst", "3", "0"],
    ),
    Refusal(
        name="refused_clusters",
        about="Clusters, and none.",
        first="plain",
        other=_other(clustered=True),
        named=["clusters"],
    ),
)
