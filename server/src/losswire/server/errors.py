"""The exceptions that are reported to callers; `rpc/status.py` maps each to its status code."""

from collections.abc import Sequence
from typing import ClassVar

from losswire.wire import Violation


class LosswireServerError(Exception):
    """An error that is reported to the caller, for whom its text is written."""

    violations: Sequence[Violation] = ()
    retry_after_ms: int | None = None


class InvalidEvaluationError(LosswireServerError):
    """An evaluation that breaks its loss's rules; `violations` lists everything that is wrong."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        """Store all violations, at least one."""
        super().__init__("; ".join(f"{each.field}: {each.description}" for each in violations))
        self.violations = tuple(violations)


class UnauthenticatedError(LosswireServerError):
    """A call of somebody who has not said, or not proved, who it is."""

    def __init__(self) -> None:
        """Use a fixed text: it must not tell a wrong token from a missing one."""
        super().__init__(
            "a token is needed: send `authorization: Bearer TOKEN` with one that this server knows"
        )


class MalformedMessageError(LosswireServerError):
    """Bytes that do not parse as the expected message."""


class UnknownLossError(LosswireServerError):
    """A loss that is not in this server's catalogue."""

    def __init__(self, name: str, nearest: Sequence[str]) -> None:
        """Store the name that was requested and the most similar known names."""
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        super().__init__(f'there is no loss "{name[:64]}"{hint}')
        self.violations = (Violation("loss", str(self)),)


class MissingResidentError(LosswireServerError):
    """An evaluation that names resident tensors which the server does not hold."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        """Store one violation for each of them, at least one."""
        names = ", ".join(each.field for each in violations)
        super().__init__(f"not held by this server, send it with PutTensor: {names}")
        self.violations = tuple(violations)


class MissingRegionError(LosswireServerError):
    """An evaluation that names regions which this server does not have, or no longer has."""

    TEXT: ClassVar = "this server has no such region, or not any more"

    def __init__(self, violations: Sequence[Violation]) -> None:
        """Store one violation for each reference, at least one."""
        super().__init__(f"no such region: {', '.join(each.field for each in violations)}")
        self.violations = tuple(violations)


class InvalidRegionError(LosswireServerError):
    """A region that cannot be created as requested."""

    def __init__(self, field: str, description: str) -> None:
        """Store the field and its violation."""
        super().__init__(f"{field}: {description}")
        self.violations = (Violation(field, description),)


class NotServedError(LosswireServerError):
    """A method or feature of the contract that this server does not implement or has disabled."""


class OverLimitError(LosswireServerError):
    """A request above this server's limits: a retry cannot succeed."""


class OverloadedError(LosswireServerError):
    """A request that may fit later, when other requests have released their memory."""

    def __init__(self, message: str, retry_after_ms: int) -> None:
        """Store the text and the delay before a retry, in milliseconds."""
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class ExpiredError(LosswireServerError):
    """A request whose deadline passed before it was computed, or that arrived too slowly."""


class DrainingError(LosswireServerError):
    """A call that a server which shuts down has ended; another server can continue it."""

    def __init__(self) -> None:
        """Use a fixed text."""
        super().__init__("the server shuts down; another one can continue")


class IdleStreamError(LosswireServerError):
    """A stream that was open for long without a message; it can be opened again."""

    def __init__(self) -> None:
        """Use a fixed text."""
        super().__init__("the stream was silent for too long; open another one")


class DeviceLostError(LosswireServerError):
    """A request to a server that has lost its device and therefore shuts down."""

    def __init__(self) -> None:
        """Use a fixed text: the cause is written to the log only."""
        super().__init__("the server lost its device and ends; another one can be tried")


class InvalidRunError(LosswireServerError):
    """A run, or a question for runs, that cannot be right; `violations` lists everything."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        """Store all violations, at least one."""
        super().__init__("; ".join(f"{each.field}: {each.description}" for each in violations))
        self.violations = tuple(violations)


class MissingRunError(LosswireServerError):
    """A run that is not kept, or is another tenant's."""

    def __init__(self, run_id: str) -> None:
        """Name the id that was requested."""
        super().__init__(f'there is no run "{run_id}"')
        self.violations = (Violation("run_id", str(self)),)


class OtherRunError(LosswireServerError):
    """A run whose id another run has."""

    def __init__(self, run_id: str) -> None:
        """Name the id."""
        super().__init__(f'another run is kept as "{run_id}"; runs never change')
        self.violations = (Violation("run.run_id", str(self)),)


class UnavailableStoreError(LosswireServerError):
    """A store of runs that does not answer now."""

    def __init__(self, retry_after_ms: int) -> None:
        """Store the delay before a retry, in milliseconds; the cause is in the log only."""
        super().__init__("the store of runs does not answer now; the server's log says why")
        self.retry_after_ms = retry_after_ms


class FullStoreError(LosswireServerError):
    """A store of runs whose disk is full."""

    def __init__(self) -> None:
        """Use a fixed text: the cause is written to the log only."""
        super().__init__("the disk of the store of runs is full; delete runs, or make room")


class DamagedStoreError(LosswireServerError):
    """A store of runs whose file is damaged."""

    def __init__(self) -> None:
        """Use a fixed text: the cause is written to the log only."""
        super().__init__("the file of the store of runs is damaged; the server's log says how")


class UnknownPathError(LosswireServerError):
    """A path that the HTTP door does not serve."""

    def __init__(self, path: str) -> None:
        """Name the path."""
        super().__init__(f"there is nothing at {path[:128]}")


class WrongMethodError(LosswireServerError):
    """A method that a path of the HTTP door does not have."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        """Store the methods that the path has."""
        has = ", ".join(allowed)
        super().__init__(f"{method[:16]} is not a method of this path, which has {has}")
        self.allowed = tuple(allowed)


class WrongMediaTypeError(LosswireServerError):
    """A body of a media type or an encoding that a path of the HTTP door does not read."""

    def __init__(self, found: str, expected: Sequence[str]) -> None:
        """Name what was found and what is expected."""
        name = found[:64] or "no Content-Type"
        super().__init__(f"{name}: expected {' or '.join(expected)}")


class WrongHostError(LosswireServerError):
    """A request for another host at a server that only its own machine is to reach."""

    def __init__(self, host: str) -> None:
        """Name the host."""
        super().__init__(
            f"this server answers for this machine only, not for {host[:64]}: a page that makes a "
            "browser ask it under another name gets nothing; --http-cors allows an origin"
        )
