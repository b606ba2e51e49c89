"""Losses and exact gradients from a Losswire server, in numpy and without torch."""

from losswire.client._allocator import keep_large_blocks
from losswire.client._async_client import AsyncClient
from losswire.client._calls.identity_arguments import IdentityFields
from losswire.client._calls.retry import RetryPolicy
from losswire.client._calls.summarize.request import SummaryFields
from losswire.client._client import Client
from losswire.client._errors import (
    AbortedError,
    AlreadyExistsError,
    CancelledError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    LosswireError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    UnknownError,
)
from losswire.client._memory.region import Region
from losswire.client._messages.arrays import ArrayInput
from losswire.client._messages.catalogue import (
    EngineDifference,
    InputInfo,
    LayoutInfo,
    Limits,
    LossInfo,
    OptionInfo,
    ServerInfo,
    Transports,
)
from losswire.client._messages.evaluation import Evaluation, EvaluationFields
from losswire.client._messages.resident import AsyncResidentTensor, ResidentTensor
from losswire.client._messages.response import EvaluationResult, FactoredGradient, Receipt
from losswire.client._runs.run import Run, RunFigures
from losswire.client._runs.shells import AsyncRuns, Runs
from losswire.client._streams.async_stream import AsyncStream
from losswire.client._streams.sync_stream import Stream
from losswire.client._summaries.comparison import Comparison
from losswire.client._summaries.progress import SummaryProgress
from losswire.client._summaries.summary import Summary
from losswire.client._version import __version__
from losswire.summaries.figures.candidates import CandidateStatistics
from losswire.summaries.figures.difference import Difference, SliceDifference
from losswire.summaries.figures.histogram import Histogram
from losswire.summaries.figures.row_loss import RowLoss
from losswire.summaries.figures.slices import Lift, SliceTable
from losswire.summaries.figures.statistics import Statistics
from losswire.wire import Violation

__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "ArrayInput",
    "AsyncClient",
    "AsyncResidentTensor",
    "AsyncRuns",
    "AsyncStream",
    "CancelledError",
    "CandidateStatistics",
    "Client",
    "Comparison",
    "DataLossError",
    "DeadlineExceededError",
    "Difference",
    "EngineDifference",
    "Evaluation",
    "EvaluationFields",
    "EvaluationResult",
    "FactoredGradient",
    "FailedPreconditionError",
    "Histogram",
    "IdentityFields",
    "InputInfo",
    "InternalError",
    "InvalidArgumentError",
    "LayoutInfo",
    "Lift",
    "Limits",
    "LossInfo",
    "LosswireError",
    "NotFoundError",
    "OptionInfo",
    "OutOfRangeError",
    "PermissionDeniedError",
    "Receipt",
    "Region",
    "ResidentTensor",
    "ResourceExhaustedError",
    "RetryPolicy",
    "RowLoss",
    "Run",
    "RunFigures",
    "Runs",
    "ServerInfo",
    "SliceDifference",
    "SliceTable",
    "Statistics",
    "Stream",
    "Summary",
    "SummaryFields",
    "SummaryProgress",
    "Transports",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnknownError",
    "Violation",
    "__version__",
    "keep_large_blocks",
]
