"""The priority of threads that compute."""

import os
import sys
import threading

from losswire.server import thresholds


def lower_priority() -> None:
    """Lower that of this thread and of those that it starts; nothing where a system cannot."""
    if sys.platform == "linux":  # elsewhere, a process has one for all of its threads
        thread = threading.get_native_id()
        now = os.getpriority(os.PRIO_PROCESS, thread)
        nice = max(now, min(now + thresholds.COMPUTE_NICENESS, thresholds.MAX_NICENESS))
        os.setpriority(os.PRIO_PROCESS, thread, nice)
