"""What a worker does with one partition."""

from losswire.client._data.partitions import Partition
from losswire.client._distributed.plan import Plan
from losswire.client._distributed.states import StateFolder, parse, rows_in


def evaluate_partition(
    partition: Partition, plan: Plan, folder: StateFolder | None
) -> tuple[bytes, int]:
    """Return the state of a partition, and how many rows it has; keeps the state in a folder."""
    state = plan.run(partition, None).to_bytes()
    if folder is not None:
        folder.save(partition, state)
    return state, rows_in(parse(state))
