"""Losses and exact gradients from a Losswire server, in numpy and without torch."""

from losswire.client._allocator import keep_large_blocks
from losswire.client._async_client import AsyncClient
from losswire.client._calls.retry import RetryPolicy
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
from losswire.client._version import __version__
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
    "Client",
    "DataLossError",
    "DeadlineExceededError",
    "EngineDifference",
    "Evaluation",
    "EvaluationFields",
    "EvaluationResult",
    "FactoredGradient",
    "FailedPreconditionError",
    "InputInfo",
    "InternalError",
    "InvalidArgumentError",
    "LayoutInfo",
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
    "Run",
    "RunFigures",
    "Runs",
    "ServerInfo",
    "Stream",
    "Transports",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnknownError",
    "Violation",
    "__version__",
    "keep_large_blocks",
]
