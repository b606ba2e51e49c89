"""The errors of calls to servers that do not answer at all, with what to do."""

from collections.abc import Sequence
from typing import Final

from losswire.client._errors import LosswireError, UnavailableError

_NO_GRPC: Final = "Failed parsing HTTP/2"
"""What gRPC says when another kind of server answers."""


def silent_error(target: str) -> UnavailableError:
    """Return the error of a call to a server that does not even answer for its health."""
    return UnavailableError(f"{target} does not answer", reason="NO_ANSWER", retryable=True)


def unreachable_error(
    targets: Sequence[str], error: LosswireError, *, may_wait: bool
) -> UnavailableError:
    """Return the error of a call when none of a client's servers has ever answered.

    `may_wait`: a larger `wait_for_ready` would have given a server more time.
    """
    if _NO_GRPC in error.message:
        advice = "What answers there is no gRPC: is it the port of --http or --metrics?"
    else:
        option = "wait_for_ready" if may_wait else "a longer timeout"
        advice = (
            "Start one with `losswire-server serve --listen HOST:PORT`, or wait longer for one "
            f"that starts, with {option}"
        )
    return UnavailableError(
        f"no Losswire server answers at {', '.join(targets)} ({error.message}). {advice}",
        reason="UNREACHABLE",
        retryable=True,
    )


def lost_error(target: str, error: LosswireError, seconds: float) -> UnavailableError:
    """Return the error of a call to a server that answered once, and did not for some seconds."""
    return UnavailableError(
        f"{target} does not answer any more, tried for {seconds:.3g} s ({error.message})",
        reason="NO_ANSWER",
        retryable=True,
    )
