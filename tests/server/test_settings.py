"""The CPUs and the memory that a server finds for itself."""

import os
from pathlib import Path

import pytest

from losswire.server.cli import main
from losswire.server.settings import MIB, Settings, available_cpus, available_memory

_MANY = 1 << 20
_INSTALLED = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
_OWN = "system.slice/a b.service"
_NO_LIMIT_V1 = "9223372036854771712"


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of /sys/fs/cgroup, on a machine of a million CPUs."""
    own = tmp_path / "own"
    own.write_text("2:cpu,cpuacct:/batch/job\n1:memory:/batch/job\n0::/" + _OWN + "\n")
    monkeypatch.setattr("losswire.server.control_group.ROOT", tmp_path)
    monkeypatch.setattr("losswire.server.control_group.OWN", own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(_MANY))
    return tmp_path


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


CPUS: tuple[tuple[str, dict[str, str], int], ...] = (
    ("version 2, two CPUs", {"cpu.max": "200000 100000\n"}, 2),
    ("version 2, a part of one", {"cpu.max": "10000 100000\n"}, 1),
    ("version 2, two and a bit", {"cpu.max": "200001 100000\n"}, 3),
    ("version 2, another period", {"cpu.max": "40000 10000\n"}, 4),
    ("version 2, no limit", {"cpu.max": "max 100000\n"}, _MANY),
    ("version 2, no period", {"cpu.max": "200000\n"}, _MANY),
    ("version 2, period 0", {"cpu.max": "200000 0\n"}, _MANY),
    ("version 2, quota 0", {"cpu.max": "0 100000\n"}, _MANY),
    ("version 2, empty", {"cpu.max": ""}, _MANY),
    ("version 2, nonsense", {"cpu.max": "two hundred\n"}, _MANY),
    (
        "version 1, three CPUs",
        {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        3,
    ),
    (
        "version 1, no limit",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        _MANY,
    ),
    ("version 1, half of it", {"cpu/cpu.cfs_quota_us": "300000\n"}, _MANY),
    (
        "version 2 before version 1",
        {
            "cpu.max": "100000 100000\n",
            "cpu/cpu.cfs_quota_us": "300000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    ("none", {}, _MANY),
    ("the process's own group", {f"{_OWN}/cpu.max": "300000 100000\n"}, 3),
    (
        "a group around it",
        {f"{_OWN}/cpu.max": "max 100000\n", "system.slice/cpu.max": "200000 100000\n"},
        2,
    ),
    (
        "version 1, a group around it",
        {
            "cpu/batch/job/cpu.cfs_quota_us": "500000\n",
            "cpu/batch/job/cpu.cfs_period_us": "100000\n",
            "cpu/batch/cpu.cfs_quota_us": "400000\n",
            "cpu/batch/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    ("another's group", {"user.slice/cpu.max": "100000 100000\n"}, _MANY),
)


@pytest.mark.parametrize(("files", "expected"), [c[1:] for c in CPUS], ids=[c[0] for c in CPUS])
def test_cpus_follow_the_cgroup(cgroup: Path, files: dict[str, str], expected: int) -> None:
    """The quota over the period, rounded up, where there is a quota."""
    _write(cgroup, files)
    assert available_cpus() == expected


def test_cpus_follow_the_affinity(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller of affinity and quota counts."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert available_cpus() == 2
    _write(cgroup, {"cpu.max": "400000 100000\n"})
    assert available_cpus() == 2
    _write(cgroup, {"cpu.max": "100000 100000\n"})
    assert available_cpus() == 1


def test_cpus_without_affinity_are_all_there_are(
    cgroup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a system without affinity the installed CPUs count, and one where they are unknown."""
    del cgroup
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cpus() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus() == 1


MEMORY: tuple[tuple[str, dict[str, str], int], ...] = (
    ("version 2", {"memory.max": "1048576\n"}, MIB),
    ("version 2, no limit", {"memory.max": "max\n"}, _INSTALLED),
    ("version 1", {"memory/memory.limit_in_bytes": "2097152\n"}, 2 * MIB),
    ("version 1, no limit", {"memory/memory.limit_in_bytes": f"{_NO_LIMIT_V1}\n"}, _INSTALLED),
    (
        "both",
        {"memory.max": "3145728\n", "memory/memory.limit_in_bytes": "2097152\n"},
        2 * MIB,
    ),
    ("nonsense", {"memory.max": "much\n"}, _INSTALLED),
    ("empty", {"memory.max": ""}, _INSTALLED),
    ("none", {}, _INSTALLED),
    ("the process's own group", {f"{_OWN}/memory.max": "1048576\n"}, MIB),
    (
        "the smallest of those around it",
        {
            f"{_OWN}/memory.max": "3145728\n",
            "system.slice/memory.max": "1048576\n",
            "memory.max": "2097152\n",
        },
        MIB,
    ),
    ("version 1, a group around it", {"memory/batch/memory.limit_in_bytes": "1048576\n"}, MIB),
    ("another's group", {"user.slice/memory.max": "1048576\n"}, _INSTALLED),
)


@pytest.mark.parametrize(("files", "expected"), [c[1:] for c in MEMORY], ids=[c[0] for c in MEMORY])
def test_memory_follows_the_cgroup(cgroup: Path, files: dict[str, str], expected: int) -> None:
    """The smallest of the limits and of what is installed."""
    _write(cgroup, files)
    assert available_memory() == expected


@pytest.mark.parametrize("text", ["0::/../other\n", "0::\n", "nonsense", ""])
def test_a_group_that_is_not_shown_leaves_the_root(cgroup: Path, text: str) -> None:
    """A path outside of the mount, or none at all: the limits of what is mounted count."""
    (cgroup / "own").write_text(text)
    _write(cgroup, {"memory.max": "1048576\n", "cpu.max": "200000 100000\n"})
    assert (available_memory(), available_cpus()) == (MIB, 2)


def test_the_command_line_takes_its_defaults_from_them(
    cgroup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--threads is the quota and --memory-budget-mib half of the memory; --help says so."""
    _write(cgroup, {"cpu.max": "700000 100000\n", "memory.max": str(42 * MIB)})
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "the default is what the cgroup allows (default: 7)" in told
    assert "the default is half of it all (default: 21)" in told


def test_settings_never_change() -> None:
    """They are read once, by the command line."""
    told = Settings(threads=1, memory_budget_bytes=1)
    with pytest.raises(AttributeError):
        told.threads = 2  # type: ignore[misc]
