"""The allocator's policy, seen in page faults rather than in time."""

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
from losswire.server.memory.allocator import return_freed_memory, keep_large_blocks
if sys.argv[1] == "kept":
    assert keep_large_blocks()
import resource, threading
import torch

torch.set_num_threads(1)

def resident_pages():
    return int(open("/proc/self/statm").read().split()[1])

def faults():
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt

def work():
    logits = torch.ones(2048, 4096)
    for _ in range(40):  # the heap settles after a few rounds
        logits * 2
    counts = []
    for _ in range(3):  # now and then the heap moves once more
        before = faults()
        for _ in range(10):
            logits * 2
        counts.append(faults() - before)
    print(min(counts))
    full = resident_pages()
    del logits
    return_freed_memory()
    print(full - resident_pages())

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""

_PAGES = 2048 * 4096 * 4 // 4096
"""The pages of one of the program's tensors."""


def _run(policy: str) -> tuple[int, int]:
    """Return the faults of ten large results on another thread, and the pages returned after."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, policy], check=True, capture_output=True, text=True
    )
    faults, returned = map(int, done.stdout.split())
    return faults, returned


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_kept_blocks_stop_page_faults_on_other_threads() -> None:
    """With the policy a thread reuses its large blocks; without, it faults on each page again."""
    kept, returned = _run("kept")
    default, _ = _run("default")
    assert default >= 10 * _PAGES
    assert kept < _PAGES // 10
    assert returned >= _PAGES
