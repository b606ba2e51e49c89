"""When a failed call is tried again: the one policy of the SDK.

gRPC's own retries are switched off, because they skip large requests, stop after a few
failures of the whole channel, and ignore when a server asks its callers to come back.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from random import SystemRandom

from losswire.client._calls.absence import lost_error, unreachable_error
from losswire.client._calls.health import is_alive
from losswire.client._calls.identity import Identity
from losswire.client._calls.identity_arguments import read_arguments
from losswire.client._errors import (
    CancelledError,
    DeadlineExceededError,
    LosswireError,
    ResourceExhaustedError,
    UnavailableError,
)
from losswire.client._messages import thresholds

# Its own generator: seeding `random` in the caller's program must not make
# every process of a job come back at the same moment.
random = SystemRandom().random


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon a call is tried again.

    Tried again are UNAVAILABLE, RESOURCE_EXHAUSTED when the server said when to come back,
    calls that were reset on their way, and DEADLINE_EXCEEDED of a server that gave up while the
    call has more time left than it took. The wait before try number n + 1 is random between 0 and
    `min(max_backoff, initial_backoff * multiplier ** (n - 1))`, after a reset at most 0.25 s, and
    at least the time that the server asked for. The call's timeout covers all tries and the waits
    between them. Raises
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
    longest = policy.max_backoff
    if isinstance(error, CancelledError):
        longest = min(longest, thresholds.RESET_BACKOFF_SECONDS)
    delay = draw() * min(longest, policy.initial_backoff * growth)
    if delay >= remaining > thresholds.LAST_TRY_SECONDS:
        # There is time for another try, if it comes sooner.
        delay = remaining / 2
    delay = max(delay, error.retry_after or 0.0)
    return delay if delay < remaining else None


class Rotation:
    """The targets of a client: which of them answer, and which is next. Any thread may use it."""

    def __init__(
        self,
        targets: Sequence[str],
        wait_for_ready: float = thresholds.READY_SECONDS,
        identity: Identity | None = None,
    ) -> None:
        """Start with the first target; `wait_for_ready` is in seconds."""
        self.targets = targets
        """The names of the targets."""
        self.wait_for_ready = wait_for_ready
        """The seconds that a call waits for a first answer of any target."""
        self.identity = identity or Identity(read_arguments({}, {}))
        """Who the client is and whom it trusts."""
        self.was_heard = False
        """Whether any target has ever answered."""
        self._count = count()
        self._usable_from = [0.0] * len(targets)
        self._is_silent = [False] * len(targets)
        self._untried = set(range(len(targets)))

    def take(self) -> int:
        """Return the index of the target to use: the next one in turn that is not set aside."""
        size = len(self._usable_from)
        if size == 1:
            return 0
        start = next(self._count) % size
        now = time.monotonic()
        for step in range(size):
            index = (start + step) % size
            if self._usable_from[index] <= now:
                if self._is_silent[index]:
                    # One caller asks whether it is back; the others go past it meanwhile.
                    self._usable_from[index] = now + thresholds.SILENT_TARGET_SECONDS
                return index
        return start

    def set_aside(self, index: int) -> None:
        """Skip a target for a moment, as long as there are others."""
        self._usable_from[index] = time.monotonic() + thresholds.FAILED_TARGET_SECONDS
        self._untried.discard(index)

    def note_silence(self, index: int) -> None:
        """Skip a target that does not even answer for its health, until it does."""
        if self.was_heard and len(self.targets) > 1:
            self._is_silent[index] = True
            self._usable_from[index] = time.monotonic() + thresholds.SILENT_TARGET_SECONDS

    def note_answer(self, index: int) -> None:
        """Use a target again: it answers."""
        self.was_heard = True
        if self._is_silent[index]:
            self._is_silent[index] = False
            self._usable_from[index] = 0.0

    def is_alive(self, index: int, seconds: float) -> bool:
        """Return whether a target answers for its health within some seconds; blocks."""
        target = self.targets[index]
        return is_alive(target, seconds, self.identity.credentials_for(target))

    @property
    def has_untried(self) -> bool:
        """Whether a target has not failed yet, so that it may be there when no other is."""
        return bool(self._untried)

    def is_doubtful(self, index: int) -> bool:
        """Return whether a target is to be asked for its health before it is used again."""
        return self._is_silent[index]

    @property
    def patience(self) -> float | None:
        """The seconds without an answer after which a target is asked for its health.

        None when that would change nothing: the only target, which has answered before, is
        waited for as long as a call may take.
        """
        if self.was_heard and len(self.targets) == 1:
            return None
        if self.was_heard:
            return thresholds.PATIENCE_SECONDS
        return min(thresholds.PATIENCE_SECONDS, self.wait_for_ready / 2)


class Attempts:
    """The tries of one call: its deadline, its targets, and the waits after failures."""

    __slots__ = (
        "_began",
        "_deadline",
        "_made",
        "_only",
        "_pinned",
        "_policy",
        "_ready_until",
        "_reason",
        "_renewed",
        "_target",
        "_timeout",
        "rotation",
    )

    def __init__(
        self, policy: RetryPolicy, rotation: Rotation, timeout: float, only: int | None = None
    ) -> None:
        """Start the clock of a call that may take `timeout` seconds in all.

        `only` is the index of the one target to use; None: all of them in turn.
        """
        self._policy = policy
        self.rotation = rotation
        """The targets."""
        self._timeout = timeout
        self._began = time.monotonic()
        self._deadline = self._began + timeout
        self._ready_until = self._began + rotation.wait_for_ready
        self._renewed = self._began
        """When the call began, or went on with a new token or certificates."""
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
            self._target = self.rotation.take()
        self._pinned = False
        return self._target

    def pass_over(self) -> int:
        """Choose another target for the try that has begun: this one is silent."""
        self.note_silence()
        if self._only is None:
            self._target = self.rotation.take()
        return self._target

    def pin_target(self) -> None:
        """Begin the next step, on the same target; its tries are counted from 0."""
        self._pinned = True
        self._made = 0
        self._reason = None

    @property
    def target_name(self) -> str:
        """The name of the target of this try."""
        return self.rotation.targets[self._target]

    @property
    def is_doubtful(self) -> bool:
        """Whether the target is to be asked for its health before this try."""
        return self._only is None and self.rotation.is_doubtful(self._target)

    def is_alive(self, seconds: float) -> bool:
        """Return whether the target answers for its health within some seconds; blocks."""
        return self.rotation.is_alive(self._target, seconds)

    @property
    def patience(self) -> float | None:
        """The seconds without an answer after which the target is asked for its health.

        None: there is no other target to go to, and this one has answered before.
        """
        if self._only is not None and self.rotation.was_heard:
            return None
        return self.rotation.patience

    def note_answer(self) -> None:
        """Note that the target has answered."""
        self.rotation.note_answer(self._target)

    def note_silence(self) -> None:
        """Note that the target does not even answer for its health."""
        self.rotation.note_silence(self._target)

    @property
    def timeout(self) -> float:
        """The seconds that the call may take, from its beginning or from `restart`."""
        return self._timeout

    def restart(self) -> None:
        """Start the clock again, and count tries from 0: the call has made progress."""
        self._began = time.monotonic()
        self._deadline = self._began + self._timeout
        self._made = 0
        self._reason = None

    def exclude(self, seconds: float) -> None:
        """Add some seconds, which the caller's own work took."""
        self._deadline += seconds
        self._ready_until += seconds

    def on_target(self, index: int) -> "Attempts":
        """Return attempts within the time that is left, to the target with an index only."""
        return Attempts(self._policy, self.rotation, self.remaining(), index)

    def remaining(self) -> float:
        """Return the seconds that are left; never negative."""
        return max(0.0, self._deadline - time.monotonic())

    def wait_after(self, error: LosswireError) -> float:
        """Return the seconds to wait before the next try; raises `error` when it was the last.

        There is none where the token or certificates have changed on disk since, if those may have
        been the reason. gRPC's own exception is dropped: `error` has all its facts.
        UnavailableError is raised instead when no target of the client has ever answered.
        """
        now = time.monotonic()
        remaining = max(0.0, self._deadline - now)
        if _is_answer(error):
            self.note_answer()
        if self.rotation.identity.is_renewed(error, self._renewed):
            self._renewed = time.monotonic()
            return 0.0
        if error.retryable and not isinstance(error, ResourceExhaustedError):
            self.rotation.set_aside(self._target)
        # The server gave up, and not the call: another one may be faster.
        if isinstance(error, DeadlineExceededError) and not error.is_final:
            error.retryable = remaining > now - self._began
        delay = delay_before_retry(self._policy, self._made, error, remaining, random)
        is_unreachable = (
            isinstance(error, UnavailableError)
            and not self.rotation.was_heard
            and (self._only is not None or not self.rotation.has_untried)
        )
        if delay is not None and is_unreachable:
            # Nobody is there who would have to be spared.
            delay = min(delay, thresholds.READY_BACKOFF_SECONDS)
            delay = delay if delay < self._ready_until - now else None
        if delay is None:
            if is_unreachable:
                may_wait = self._ready_until < self._deadline
                error = unreachable_error(self.rotation.targets, error, may_wait=may_wait)
            elif isinstance(error, UnavailableError) and not _is_answer(error):
                error = lost_error(self.target_name, error, now - self._began)
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


def _is_answer(error: LosswireError) -> bool:
    """Return whether an error came from a server, and not from gRPC on this side."""
    is_absence = isinstance(error, UnavailableError) and error.retryable
    is_made_here = is_absence or isinstance(error, DeadlineExceededError)
    return bool(error.request_id) or not is_made_here
