"""The socket that leases regions: tokens, peers, paths, and who may connect."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest

from losswire.server.address import StartError
from losswire.server.app import App
from losswire.server.settings import MIB, Settings
from tests.support.harness import Child
from tests.support.inside import PATIENCE
from tests.support.regions import create, fetch, region
from tests.support.requests import TIMEOUT
from tests.support.sharing import create_from, sharing


def test_tokens_work_once(child: Child) -> None:
    """A used token, and a wrong one, lease nothing."""
    with child.channel() as channel:
        created = create(channel, 1)
        held = fetch(created)
        with pytest.raises(ConnectionError):
            fetch(created)
        other = create(channel, 1)
        for token in (b"", bytes(32), other.token[:31], other.token[:-1] + b"\0", b"\xff" * 64):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(other.socket_path)
                peer.sendall(token)
                peer.shutdown(socket.SHUT_WR)
                # What is behind a token is not read, which the kernel calls a reset.
                with suppress(ConnectionResetError):
                    assert socket.recv_fds(peer, 1, 1)[:2] == (b"", [])
        fetch(other).close()
        held.close()


def test_a_peer_that_says_nothing_is_let_go(child: Child) -> None:
    """A connection without a token ends by itself, and others are served meanwhile."""
    with child.channel() as channel:
        path = create(channel, 1).socket_path
        silent = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        for peer in silent:
            peer.settimeout(TIMEOUT)
            peer.connect(path)
        with region(channel):
            pass
        for peer in silent:
            assert peer.recv(1) == b""
            peer.close()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_socket_is_private_and_goes_with_the_server() -> None:
    """Only the owner may enter the folder, and it is removed at the end."""
    folders: list[Path] = []

    async def body(app: App, _: grpc.aio.Channel) -> None:
        path = Path(app.evaluator.regions.socket_path)
        assert [_mode(each) for each in (path, path.parent)] == [0o600, 0o700]
        folders.append(path.parent)

    sharing(body)
    assert not folders[0].exists()


def test_a_chosen_socket(tmp_path: Path) -> None:
    """The operator's path is used, taken over from a server that has ended, and removed."""
    path = tmp_path / "losswire.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    async def body(_: App, channel: grpc.aio.Channel) -> None:
        created = await create_from(channel)
        assert created.socket_path == str(path)
        with pytest.raises(StartError, match="a server listens there"):
            await _start(region_socket=str(path))

    sharing(body, region_socket=str(path))
    assert list(tmp_path.iterdir()) == []


async def _start(**changes: object) -> None:
    facts: dict[str, object] = {
        "listen": "127.0.0.1:0",
        "device": "cpu",
        "threads": 1,
        "memory_budget_bytes": 64 * MIB,
        "region_quota_bytes": MIB,
        "drain_seconds": PATIENCE,
        **changes,
    }
    app = App(Settings(**facts))  # type: ignore[arg-type]
    await app.start()
    await app.stop()


@pytest.mark.parametrize("what", ["file", "folder", "long"])
def test_paths_that_cannot_be_listened_at(tmp_path: Path, what: str) -> None:
    """A file that is no socket stays, and the server does not start without its socket."""
    path = tmp_path / "taken"
    if what == "file":
        path.write_text("mine")
    elif what == "folder":
        path = tmp_path / "missing" / "regions.sock"
    else:
        path = tmp_path / ("x" * 200)
    with pytest.raises(StartError, match="--region-socket"):
        asyncio.run(_start(region_socket=str(path)))
    assert what != "file" or path.read_text() == "mine"


@pytest.mark.parametrize(("path", "shared"), [("", False), ("regions.sock", True)])
def test_other_machines_are_offered_none(tmp_path: Path, path: str, *, shared: bool) -> None:
    """A server that other machines can reach leases regions only at a given socket."""
    chosen = str(tmp_path / path) if path else ""

    async def body(app: App, _: grpc.aio.Channel) -> None:
        assert bool(app.evaluator.regions.socket_path) == shared

    sharing(body, listen="0.0.0.0:0", allow_insecure=True, region_socket=chosen)


_PLAIN_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
"""An interpreter that every user may run."""


@pytest.mark.skipif(
    os.geteuid() != 0 or _PLAIN_PYTHON is None, reason="only root can change its user"
)
def test_other_users_are_refused(tmp_path: Path) -> None:
    """Even with a token and a folder that is open: the kernel names the peer's user."""
    path = tmp_path / "regions.sock"
    script = (
        "import socket, sys; peer = socket.socket(socket.AF_UNIX); peer.connect(sys.argv[1]); "
        "peer.sendall(bytes.fromhex(sys.argv[2])); print(socket.recv_fds(peer, 1, 1)[:2])"
    )

    async def body(_: App, channel: grpc.aio.Channel) -> None:
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(0o755)
        path.chmod(0o666)
        for user, expected in ((65534, "(b'', [])"), (0, "(b'\\x01', [")):
            token = (await create_from(channel)).token.hex()
            found = await asyncio.to_thread(
                subprocess.run,
                [str(_PLAIN_PYTHON), "-c", script, str(path), token],
                user=user,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                cwd="/",
            )
            refused = "ConnectionResetError" in found.stdout or "BrokenPipe" in found.stdout
            assert found.stdout.startswith(expected) or (user and refused), found.stdout

    sharing(body, region_socket=str(path))


def test_a_killed_server_leaves_nothing_for_ever(tmp_path: Path) -> None:
    """Its private folder is removed by the next server of the same user."""
    # A path that is short enough for a socket.
    with TemporaryDirectory() as name:
        folders, environment = Path(name), {"TMPDIR": name}
        with Child(tmp_path / "log", environment=environment) as killed:
            [left] = folders.glob("losswire-*")
            killed.process.kill()
        assert left.exists()
        with Child(tmp_path / "log", environment=environment):
            [new] = folders.glob("losswire-*")
            assert new != left
        assert not [*folders.iterdir()]
