"""Folders of killed processes are removed by the next one, and nothing else is."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from losswire.server.private_folder import PrivateFolder, new_path

_OWNER = """
import sys
from pathlib import Path
from losswire.server.private_folder import PrivateFolder

folder = PrivateFolder(Path(sys.argv[1]))
(folder.path / "regions.sock").touch()
print("created", flush=True)
sys.stdin.read()
"""


@contextmanager
def _owner(path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process that has a folder, and kill it."""
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"created\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    """By the next one that makes a folder beside it, and not while the process runs."""
    theirs, ours = tmp_path / "losswire-theirs", tmp_path / "losswire-ours"
    with _owner(theirs):
        PrivateFolder(ours).remove()
        assert [*tmp_path.iterdir()] == [theirs]
    assert [*tmp_path.iterdir()] == [theirs]
    folder = PrivateFolder(ours)
    assert [*tmp_path.iterdir()] == [ours]
    folder.remove()
    folder.remove()
    assert not [*tmp_path.iterdir()]


def test_one_that_is_just_made_is_not_removed(tmp_path: Path) -> None:
    """Also when others look for stale folders at the same time."""

    def make(number: int) -> bool:
        folder = PrivateFolder(tmp_path / f"losswire-{number}")
        is_there = (folder.path / "lock").exists()
        folder.remove()
        return is_there

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(make, range(600)))


def _without_lock(folder: Path) -> None:
    folder.mkdir(mode=0o700)


def _open_to_others(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "lock").touch()
    folder.chmod(0o755)


def _link(folder: Path) -> None:
    other = folder.with_name("other")
    _killed(other)
    folder.symlink_to(other)


def _link_as_lock(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "lock").symlink_to("/dev/null")


def _file(folder: Path) -> None:
    folder.touch(mode=0o700)


def _killed(folder: Path) -> None:
    with _owner(folder):
        pass


@pytest.mark.parametrize("make", [_without_lock, _open_to_others, _link, _link_as_lock, _file])
def test_nothing_else_is_removed(make: Callable[[Path], None], tmp_path: Path) -> None:
    """What is no such folder stays, whatever its name is."""
    make(tmp_path / "losswire-looks-like-it")
    before = {*tmp_path.rglob("*")}
    folder = PrivateFolder(tmp_path / "losswire-ours")
    folder.remove()
    assert {*tmp_path.rglob("*")} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_folder_of_another_user_stays(tmp_path: Path) -> None:
    """Also where this user could remove it."""
    theirs = tmp_path / "losswire-theirs"
    _killed(theirs)
    os.chown(theirs, 65534, -1)
    PrivateFolder(tmp_path / "losswire-ours").remove()
    assert [*tmp_path.iterdir()] == [theirs]


def test_one_that_was_removed_is_restored(tmp_path: Path) -> None:
    """It is made again, as private and as safe from others as before, and only when it is gone."""
    folder = PrivateFolder(tmp_path / "losswire-ours")
    (folder.path / "kept").touch()
    folder.restore()
    assert (folder.path / "kept").exists()
    shutil.rmtree(folder.path)
    folder.restore()
    assert [*folder.path.iterdir()] == [folder.path / "lock"]
    PrivateFolder(tmp_path / "losswire-other").remove()
    assert folder.path.is_dir()
    folder.remove()
    assert not [*tmp_path.iterdir()]


def test_one_that_another_has_taken_is_not_used(tmp_path: Path) -> None:
    """What is at its path, and not private, stays as it is."""
    folder = PrivateFolder(tmp_path / "losswire-ours")
    shutil.rmtree(folder.path)
    folder.path.mkdir()
    folder.path.chmod(0o777)
    with pytest.raises(FileExistsError):
        folder.restore()


def test_only_its_user_can_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is private, and its path short enough for the sockets in it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 20)))
    path = new_path()
    assert len(os.fsencode(path)) < 90
    folder = PrivateFolder(path)
    assert path.stat().st_mode & 0o777 == 0o700
    folder.remove()
    assert not path.exists()
