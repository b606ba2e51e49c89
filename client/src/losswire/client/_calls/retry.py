"""When a failed call is tried again: the one policy of the SDK.

gRPC's own retries are switched off, because they skip large requests, stop after a few
failures of the whole channel, and ignore when a server asks its callers to come back.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import SystemRandom

from losswire.client._errors import DeadlineExceededError, LosswireError, UnavailableError
from losswire.client._messages import thresholds

# Its own generator: seeding `random` in the caller's program must not make
# every process of a job come back at the same moment.
random = SystemRandom().random


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon a call is tried again.

    Tried again are UNAVAILABLE, and RESOURCE_EXHAUSTED when the server said when to come
    back. The wait before try number n + 1 is random between 0 and
    `min(max_backoff, initial_backoff * multiplier ** (n - 1))`, and at least the time that
    the server asked for. The call's timeout covers all tries and the waits between them. Raises
    ValueError for numbers out of range.

    Example:
        >>> with Client(address, retry=RetryPolicy(max_attempts=3)) as own:
        ...     float(own.evaluate("mse_loss", {"input": [2.0], "target": [0.0]}).loss)
        4.0
    """

    initial_backoff: float = 0.05
    """The longest first wait, in seconds; greater than 0."""
    max_backoff: float = 2.0
    """The longest of all waits, in seconds; at least `initial_backoff`."""
    multiplier: float = 2.0
    """The factor by which the longest wait grows with each try; at least 1."""
    max_attempts: int | None = None
    """The most tries, the first included; at least 1. None: as many as the timeout allows."""

    def __post_init__(self) -> None:
        if not 0 < self.initial_backoff <= self.max_backoff < math.inf:
            raise ValueError("RetryPolicy: expected 0 < initial_backoff <= max_backoff < inf")
        if not 1 <= self.multiplier < math.inf:
            raise ValueError("RetryPolicy: expected 1 <= multiplier < inf")
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError("RetryPolicy: expected max_attempts >= 1, or None")


def delay_before_retry(
    policy: RetryPolicy,
    attempts: int,
    error: LosswireError,
    remaining: float,
    draw: Callable[[], float],
) -> float | None:
    """Return the seconds to wait before the next try; None when there is to be none.

    `attempts` tries were made, the last of which gave `error`; `remaining` seconds are left
    of the call's timeout; `draw` returns a number in [0, 1).
    """
    if not error.retryable:
        return None
    if policy.max_attempts is not None and attempts >= policy.max_attempts:
        return None
    # The exponent is capped because a float power overflows into an exception.
    growth = policy.multiplier ** min(attempts - 1, 64)
    delay = draw() * min(policy.max_backoff, policy.initial_backoff * growth)
    delay = max(delay, error.retry_after or 0.0)
    return delay if delay < remaining else None


class Rotation:
    """Chooses the target of the next try: the next one in turn that did not just fail."""

    def __init__(self, size: int) -> None:
        """Start with the first of `size` targets."""
        self._count = count()
        self._usable_from = [0.0] * size

    def take(self) -> int:
        """Return the index of the target to use."""
        size = len(self._usable_from)
        if size == 1:
            return 0
        start = next(self._count) % size
        now = time.monotonic()
        for step in range(size):
            index = (start + step) % size
            if self._usable_from[index] <= now:
                return index
        return start

    def set_aside(self, index: int) -> None:
        """Skip a target for a moment, as long as there are others."""
        self._usable_from[index] = time.monotonic() + thresholds.FAILED_TARGET_SECONDS


class Attempts:
    """The tries of one call: its deadline, its targets, and the waits after failures."""

    __slots__ = (
        "_deadline",
        "_made",
        "_only",
        "_pinned",
        "_policy",
        "_reason",
        "_rotation",
        "_target",
        "_timeout",
    )

    def __init__(
        self, policy: RetryPolicy, rotation: Rotation, timeout: float, only: int | None = None
    ) -> None:
        """Start the clock of a call that may take `timeout` seconds in all.

        `only` is the index of the one target to use; None: all of them in turn.
        """
        self._policy = policy
        self._rotation = rotation
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._made = 0
        self._reason: LosswireError | None = None
        """The last failure that was worth another try."""
        self._target = 0
        self._only = only
        self._pinned = False

    def start(self) -> int:
        """Begin a try; returns the index of its target."""
        self._made += 1
        if self._only is not None:
            self._target = self._only
        elif not self._pinned:
            self._target = self._rotation.take()
        self._pinned = False
        return self._target

    def pin_target(self) -> None:
        """Begin the next step, on the same target; its tries are counted from 0."""
        self._pinned = True
        self._made = 0
        self._reason = None

    @property
    def timeout(self) -> float:
        """The seconds that the call may take, from its beginning or from `restart`."""
        return self._timeout

    def restart(self) -> None:
        """Start the clock again, and count tries from 0: the call has made progress."""
        self._deadline = time.monotonic() + self._timeout
        self._made = 0
        self._reason = None

    def exclude(self, seconds: float) -> None:
        """Add some seconds, which the caller's own work took."""
        self._deadline += seconds

    def on_target(self, index: int) -> "Attempts":
        """Return attempts within the time that is left, to the target with an index only."""
        return Attempts(self._policy, self._rotation, self.remaining(), index)

    def remaining(self) -> float:
        """Return the seconds that are left; never negative."""
        return max(0.0, self._deadline - time.monotonic())

    def wait_after(self, error: LosswireError) -> float:
        """Return the seconds to wait before the next try; raises `error` when it was the last.

        gRPC's own exception is dropped: `error` has all its facts.
        """
        if isinstance(error, UnavailableError):
            self._rotation.set_aside(self._target)
        delay = delay_before_retry(self._policy, self._made, error, self.remaining(), random)
        if delay is None:
            # The failure before a try that the timeout cut short explains more than the timeout.
            cut_short = isinstance(error, DeadlineExceededError)
            reason, self._reason = self._reason, None
            try:
                raise (reason if cut_short and reason else error) from None
            finally:
                # The traceback has this frame: see the callers.
                del reason, error
        self._reason = error
        return delay
