"""The policy that bulk callers may choose, seen in page faults rather than in time."""

import os
import subprocess
import sys

import pytest

from losswire.client import _allocator

_PROGRAM = """
import sys
import losswire.client

if sys.argv[1] == "kept":
    assert losswire.client.keep_large_blocks()

import resource, threading
import numpy as np

def work():
    logits = np.ones((2048, 4096), np.float32)
    for _ in range(40):  # the heap settles after a few rounds
        logits * 2
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(10):
        logits * 2
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def _faults(policy: str) -> int:
    """Count the page faults of ten large arrays on another thread."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, policy], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_kept_blocks_stop_page_faults() -> None:
    """Chosen after the SDK is imported, the policy still reaches every thread."""
    kept, default = _faults("kept"), _faults("default")
    assert kept < 50
    assert default > 10 * kept


def test_nothing_happens_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the C library is another, the answer is no."""

    def refuse(name: str) -> str:
        raise ValueError(name)

    monkeypatch.setattr(os, "confstr", refuse)
    assert not _allocator.keep_large_blocks()
