"""One row of a summary."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from losswire.v1 import summary_pb2


@dataclass(frozen=True, slots=True)
class RowLoss:
    """The loss of one row that stands out.

    Example:
        >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0], "id": ["a", "b"]}
        >>> worst = client.summarize("mse_loss", [batch], ids="id").worst[0]
        >>> worst.id, worst.value, worst.row
        ('b', 9.0, 1)
    """

    id: int | str | None
    """The id that the caller gave it; None where rows have none."""
    partition: str
    """The key of the partition that it is in."""
    row: int
    """Its number in the partition, from 0 on."""
    value: float
    """Its loss: of the candidate that was asked for, or the first one's minus the second's."""
    values: tuple[float, ...]
    """Its loss for each candidate; one where there are no candidates."""
    weight: float
    """Its weight."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Its value in each column of the slices, by name."""


def row_loss(message: summary_pb2.RowLoss, first: int = 0, second: int | None = None) -> RowLoss:
    """Return the row of a message; its value is that of a candidate, or a difference of two."""
    values = tuple(message.values)
    kind = message.WhichOneof("id")
    return RowLoss(
        id=None if kind is None else getattr(message, kind),
        partition=message.partition,
        row=message.row,
        value=values[first] if second is None else values[first] - values[second],
        values=values,
        weight=message.weight,
        labels=dict(message.labels),
    )
