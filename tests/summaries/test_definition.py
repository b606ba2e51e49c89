"""Summaries of drawn rows are those of the exact definition, however the rows are cut."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from losswire.summaries import Column, Rows, Settings, SummaryState, merge
from losswire.v1 import summary_pb2
from tests.conformance.summaries.compare import differences
from tests.conformance.summaries.definition import Key, Plan, Row, summary

_TABLES = ((), (("c",),), (("c",), ("d",), ("c", "d")))


class _Drawn:
    """A plan and rows, from a seed."""

    def __init__(self, seed: int) -> None:
        """Draw them."""
        self.draw = random.Random(seed)  # noqa: S311 (nothing secret)
        width = self.draw.choice([1, 1, 2, 3])
        self.plan = Plan(
            candidates=("x", "y", "z")[:width] if width > 1 else (),
            tables=self.draw.choice(_TABLES),
            scale=self.draw.choice([-4, 0, 3, 6, 8]),
            worst=self.draw.choice([0, 1, 3, 50]),
            clustered=self.draw.random() < 0.4,
        )
        self._value: Callable[[], float] = self.draw.choice(
            [
                lambda: self.draw.gammavariate(2, 1),
                lambda: float(self.draw.randint(-3, 3)),
                lambda: 1e6 + self.draw.gauss(0, 1e-3),
                lambda: self.draw.gauss(0, 1),
                lambda: self.draw.gammavariate(2, 1e-100),
                lambda: self.draw.gammavariate(2, 1e100),
            ]
        )
        self._weight: Callable[[], float] = self.draw.choice(
            [
                lambda: 1.0,
                lambda: float(self.draw.randint(1, 4)),
                lambda: self.draw.uniform(0.1, 3),
                lambda: 10.0 ** self.draw.uniform(-20, 20),
            ]
        )
        self._broken = self.draw.choice([0, 0, 0.1, 0.5, 1])
        self._ignored = self.draw.choice([0, 0, 0.2])
        self._with_denominators = self.draw.random() < 0.2
        self._texts = self.draw.random() < 0.5
        self._with_ids = self.draw.random() < 0.7
        self.rows = self._rows(self.draw.randint(1, 60))

    def _rows(self, count: int) -> list[Row]:
        ids = self.draw.sample(range(count), count)
        found, cluster = [], 0
        for at in range(count):
            cluster += self.draw.random() < 0.3
            found.append(self._row(at, ids[at], cluster))
        return found

    def _row(self, at: int, number: int, cluster: int) -> Row:
        width = self.plan.width
        counted = self.draw.random() >= self._ignored
        labels = {"c": f"c{self.draw.randint(0, 2)}", "d": str(self.draw.randint(5, 7))}
        return Row(
            values=tuple(self._loss() for _ in range(width)),
            weight=self._weight(),
            denominators=tuple(self.draw.choice([0.0, 0.5, 1.0, 2.0]) for _ in range(width))
            if self._with_denominators
            else None,
            counted=(counted,) * width if self._ignored else None,
            labels=labels if self.plan.tables else {},
            cluster=self._key(cluster) if self.plan.clustered else None,
            id=self._key(number) if self._with_ids else None,
            row=at,
        )

    def _loss(self) -> float:
        if self.draw.random() < self._broken:
            return self.draw.choice([math.nan, math.inf, -math.inf])
        return self._value()

    def _key(self, number: int) -> Key:
        return f"k{number:03}" if self._texts else number

    def settings(self) -> Settings:
        """Return the settings of the plan; clusters are grouped in the half of the cases."""
        plan = self.plan
        return Settings(
            loss=plan.loss,
            candidates=plan.candidates,
            tables=plan.tables,
            scale=plan.scale,
            worst=plan.worst,
            grouped_clusters=plan.clustered and self.draw.random() < 0.5,
        )

    def cut(self, rows: Sequence[Row], largest: int) -> Iterator[Sequence[Row]]:
        """Cut rows into parts."""
        start = 0
        while start < len(rows):
            size = self.draw.randint(1, largest)
            yield rows[start : start + size]
            start += size

    def batch(self, rows: Sequence[Row]) -> Rows:
        """Return rows as a server adds them."""
        width = range(self.plan.width)

        def array(of: Any) -> Any:  # noqa: ANN401 (a function of row and candidate)
            return np.array([[of(row, each) for row in rows] for each in width])

        optional: dict[str, Any] = {}
        if any(row.weight != 1 for row in rows):
            optional["weights"] = np.array([row.weight for row in rows])
        if self._with_denominators:
            optional["denominators"] = array(lambda row, at: row.denominators[at])
            with np.errstate(invalid="ignore"):
                values = array(lambda row, at: row.values[at])
                optional["numerators"] = values * optional["denominators"]
        if self._ignored:
            optional["counted"] = array(lambda row, at: row.takes_part(at))
        return Rows(
            values=array(lambda row, at: row.values[at]),
            columns={name: _column([row.labels[name] for row in rows]) for name in rows[0].labels},
            clusters=_column([row.cluster for row in rows]) if self.plan.clustered else None,
            ids=_column([row.id for row in rows]) if self._with_ids else None,
            partition="data",
            first_row=rows[0].row,
            **optional,
        )


def _column(keys: Sequence[Any]) -> Column:
    if all(isinstance(each, int) for each in keys):
        return Column(np.array(keys, np.int64))
    labels = sorted(set(keys))
    return Column(np.array([labels.index(each) for each in keys], np.int64), labels)


def _merged(drawn: _Drawn, settings: Settings) -> summary_pb2.LossSummary:
    """Summarize shards and merge them in some order."""
    messages = []
    for shard in drawn.cut(drawn.rows, 40):
        state = SummaryState(settings)
        for rows in drawn.cut(shard, 20):
            state.add(drawn.batch(rows))
        messages.append(state.message())
    drawn.draw.shuffle(messages)
    return merge(messages)


def _resumed(drawn: _Drawn, settings: Settings) -> summary_pb2.LossSummary:
    """Summarize shard after shard, each by another server that continues the state."""
    state = SummaryState(settings)
    for shard in drawn.cut(drawn.rows, 40):
        state = SummaryState.resume(state.message(), settings)
        for rows in drawn.cut(shard, 20):
            state.add(drawn.batch(rows))
    return state.message()


@pytest.mark.parametrize("make", [_merged, _resumed], ids=["merged", "resumed"])
@pytest.mark.parametrize("seed", range(60))
def test_a_summary_is_that_of_the_definition(seed: int, make: Any) -> None:  # noqa: ANN401
    """Rows of all kinds, cut at random: the same summary as of all at once, exactly computed."""
    drawn = _Drawn(seed)
    got = make(drawn, drawn.settings())
    opened = {
        each.name if each.WhichOneof("key") == "name" else each.number
        for each in got.total.clusters.open
    }
    folded = {row.cluster for row in drawn.rows if row.cluster is not None} - opened
    assert list(differences(got, summary(drawn.plan, drawn.rows, folded=folded))) == []
