"""Summaries and comparisons of drawn losses, without a server."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from losswire.client import Comparison, Summary
from losswire.summaries import Column, Rows, Settings, SummaryState
from losswire.v1.evaluation_pb2 import OptionValue, Receipt
from losswire.v1.summary_pb2 import LossSummary
from losswire.v1.tensor_pb2 import DATA_TYPE_FLOAT32

Floats = npt.NDArray[np.float64]

COUNTRIES = ("DE", "FR", "JP", "NZ")
NAMES = ("small", "large", "tiny", "old")
"""The candidates of a comparison."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is drawn."""

    rows: int = 2000
    candidates: int = 1
    countries: Sequence[str] = COUNTRIES
    names: Sequence[str] = NAMES
    cross: bool = False
    """Whether there is a table of two columns."""
    weighted: bool = False
    clustered: bool = False
    nan: int = 0
    """How many losses are NaN, and as many are infinite."""
    below_zero: float = 0.0
    """What is taken from every loss."""
    loss: str = "cross_entropy"
    options: tuple[tuple[str, float], ...] = (("label_smoothing", 0.1),)
    worst: int = 20
    partition: str = "part-0.parquet"
    ids: str = "row-"
    device: str = "cpu"


def losses(drawn: Drawn) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Return the losses of each candidate, the country and the weight of each row."""
    random = np.random.default_rng(17)
    shares = np.array([0.5, 0.3, 0.19, 0.01])[: len(drawn.countries)]
    countries = random.choice(len(drawn.countries), drawn.rows, p=shares / shares.sum())
    base = np.exp(random.normal(-2 + 0.8 * (countries == 2), 1.2, drawn.rows))
    shift = np.where(countries == 2, 0.05, -0.03)
    noise = random.normal(0, 0.05, (drawn.candidates, drawn.rows))
    values = base + np.arange(drawn.candidates)[:, None] * shift + noise**2 - drawn.below_zero
    values[:, : drawn.nan] = np.nan
    values[:, drawn.nan : 2 * drawn.nan] = np.inf
    weights = random.uniform(0.5, 2, drawn.rows)
    return values, countries, weights


def message(drawn: Drawn) -> LossSummary:
    """Return the state of what is drawn; the last five rows take no part."""
    values, countries, weights = losses(drawn)
    counted = np.ones(values.shape, bool)
    counted[:, -5:] = False
    tables: tuple[tuple[str, ...], ...] = (("country",),)
    settings = Settings(
        loss=drawn.loss,
        options={name: OptionValue(double_value=value) for name, value in drawn.options},
        candidates=tuple(drawn.names[: drawn.candidates]) if drawn.candidates > 1 else (),
        tables=(*tables, ("country", "half")) if drawn.cross else tables,
        worst=drawn.worst,
    )
    state = SummaryState(settings)
    rows = np.arange(drawn.rows)
    state.add(
        Rows(
            values=values,
            weights=weights if drawn.weighted else None,
            counted=counted,
            columns={
                "country": Column(countries, list(drawn.countries)),
                "half": Column(rows % 2),
            },
            clusters=Column(rows // 5) if drawn.clustered else None,
            ids=Column(rows, [f"{drawn.ids}{each}" for each in rows]),
            partition=drawn.partition,
        )
    )
    state.note_receipt(
        Receipt(
            device=drawn.device,
            engine="closed_form",
            compute_data_type=DATA_TYPE_FLOAT32,
            server_version="0.1.0",
            torch_version="2.13.0",
        )
    )
    return state.message()


def summary(**drawn: object) -> Summary:
    """Return a summary of one."""
    return Summary(message(Drawn(**drawn)))  # type: ignore[arg-type]


def comparison(**drawn: object) -> Comparison:
    """Return a comparison, of two candidates unless told otherwise."""
    return Comparison(message(Drawn(**{"candidates": 2, **drawn})))  # type: ignore[arg-type]
