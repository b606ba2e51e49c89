"""However something ends, arrays in shared memory keep their contents and results are right.

Random schedules (schedules.py) of every way to end, every state of a call and every client. The
seed is printed with what went wrong; LOSSWIRE_SEED repeats it, LOSSWIRE_SCHEDULES runs more.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_SEED = int(os.environ.get("LOSSWIRE_SEED", "20"))
_PARTS = 4
_COUNT = int(os.environ.get("LOSSWIRE_SCHEDULES", "64")) // _PARTS
_PATIENCE = 300.0 + 2.0 * _COUNT


@pytest.mark.timeout(_PATIENCE)
@pytest.mark.parametrize("part", range(_PARTS))
def test_no_end_of_anything_changes_what_is_shared(part: int, tmp_path: Path) -> None:
    """Contents stay, each result is right or an error, and memory is given back."""
    # Half of them fork a process while gRPC works for it, which only goes without gRPC's own
    # support of forks.
    forking = {"GRPC_ENABLE_FORK_SUPPORT": "0"} if part % 2 else {}
    # A child that crashes says where.
    forking["PYTHONFAULTHANDLER"] = "1"
    numbers = (_SEED, part * _COUNT, _COUNT)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.schedules", *map(str, numbers), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **forking},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [each for each in reports if each.get("problems") or each.get("leaked", 0) > 0]
    assert not wrong, f"seed {_SEED}: {len(wrong)} of {_COUNT}: {wrong}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(reports) == _COUNT + 1
