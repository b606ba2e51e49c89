"""Losses and exact gradients from a Losswire server, in numpy and without torch."""

from losswire.client._allocator import keep_large_blocks
from losswire.client._arrays import ArrayInput
from losswire.client._async import AsyncClient
from losswire.client._async_stream import AsyncStream
from losswire.client._catalogue import (
    InputInfo,
    LayoutInfo,
    Limits,
    LossInfo,
    OptionInfo,
    ServerInfo,
    Transports,
)
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
from losswire.client._evaluation import Evaluation, EvaluationFields
from losswire.client._region import Region
from losswire.client._resident import AsyncResidentTensor, ResidentTensor
from losswire.client._response import EvaluationResult, FactoredGradient, Receipt
from losswire.client._retry import RetryPolicy
from losswire.client._sync import Client
from losswire.client._sync_stream import Stream
from losswire.client._version import __version__
from losswire.wire import Violation

__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "ArrayInput",
    "AsyncClient",
    "AsyncResidentTensor",
    "AsyncStream",
    "CancelledError",
    "Client",
    "DataLossError",
    "DeadlineExceededError",
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
