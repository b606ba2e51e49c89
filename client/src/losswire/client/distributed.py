"""One evaluation in many parts: the functions that engines of any kind are built from.

Each part of the data is summarized where it lies, by `summarize_partition`, and the states are
merged by `merge`. Both are pure: bytes come out, nothing is kept, so a part that is done twice
changes nothing. `losswire.client.ray` and `losswire.client.spark` do this over files.
"""

from typing import Any

from losswire.client._data.partitions import Partition, partitions_of
from losswire.client._distributed.job import IncompleteError
from losswire.client._distributed.plan import Plan
from losswire.client._distributed.progress import DistributedProgress
from losswire.client._distributed.states import merge

__all__ = [
    "DistributedProgress",
    "IncompleteError",
    "Partition",
    "Plan",
    "merge",
    "partitions_of",
    "summarize_partition",
]


def summarize_partition(batches: Any, plan: Plan, *, partition: str | None = None) -> bytes:
    """Return the state of a part of the data, as `Summary.to_bytes` and `Comparison.to_bytes` do.

    `batches` are as in `Client.summarize`, or a `Partition` that `partitions_of` returned.
    `partition` is the key of these rows, which no other part has; files have keys of their own,
    and need none.

    Raises as `Client.summarize` and `compare` do.

    Example:
        >>> plan = Plan.of("mse_loss", target=address)
        >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
        >>> state = summarize_partition(batch, plan, partition="monday")
        >>> Summary.from_bytes(state).included
        {'monday': [(0, 2)]}
    """
    return plan.run(batches, partition).to_bytes()
