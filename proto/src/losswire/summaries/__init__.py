"""Summaries of losses over data sets: mergeable states, and what they say.

The states are the message LossSummary. Server and SDK share this room. Needs numpy, never torch.
"""

from losswire.summaries import statistics
from losswire.summaries._buckets import (
    MAX_SCALE,
    MIN_SCALE,
    accuracy_of,
    bucket_bounds,
    bucket_cells,
    bucket_indices,
    scale_for,
)
from losswire.summaries._form import check_message
from losswire.summaries._kernels import GroupMoments, Kernels
from losswire.summaries._rows import (
    MAX_CANDIDATES,
    MAX_OPEN_CLUSTERS,
    MAX_SLICES,
    MAX_TABLES,
    MAX_WORST,
    OPEN_CLUSTERS,
    Column,
    Key,
    MemoryNeededError,
    MergeError,
    Rows,
    Settings,
    TooManyError,
)
from losswire.summaries._state import SummaryState, merge, settings_of

__all__ = [
    "MAX_CANDIDATES",
    "MAX_OPEN_CLUSTERS",
    "MAX_SCALE",
    "MAX_SLICES",
    "MAX_TABLES",
    "MAX_WORST",
    "MIN_SCALE",
    "OPEN_CLUSTERS",
    "Column",
    "GroupMoments",
    "Kernels",
    "Key",
    "MemoryNeededError",
    "MergeError",
    "Rows",
    "Settings",
    "SummaryState",
    "TooManyError",
    "accuracy_of",
    "bucket_bounds",
    "bucket_cells",
    "bucket_indices",
    "check_message",
    "merge",
    "scale_for",
    "settings_of",
    "statistics",
]
