"""`losswire` as a process: how it starts, ends, and is interrupted."""

import os
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from losswire.client.cli import _common

SCRIPT = Path(sys.executable).with_name("losswire")
MODULE = (sys.executable, "-m", "losswire.client.cli")


def _run(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", [(str(SCRIPT),), MODULE], ids=["script", "module"])
def test_version(command: tuple[str, ...]) -> None:
    """The script and the module are the same command, of the version installed."""
    ran = _run(*command, "--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"losswire {version('losswire')}\n", "")


COMMANDS = ("losses", "describe", "eval", "check-gradient", "ping")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str) -> None:
    """Every command explains itself, and the first page tells the exit statuses."""
    ran = _run(str(SCRIPT), *command.split(), "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"usage: losswire {command}".rstrip())
    if command:
        assert "--server HOST:PORT" in ran.stdout
    else:
        assert [each for each in COMMANDS if f"\n    {each}" not in ran.stdout] == []
        assert "exit status: 0 fine; 1 a check failed; 2 wrong usage" in ran.stdout


def test_the_environment_names_the_server_and_the_token(server: str) -> None:
    """LOSSWIRE_TARGET and LOSSWIRE_TOKEN are read; empty ones are none."""
    ran = _run(str(SCRIPT), "ping", LOSSWIRE_TARGET=server, LOSSWIRE_TOKEN="")
    assert (ran.returncode, ran.stdout.split()[:1]) == (0, [server])
    ran = _run(str(SCRIPT), "ping", LOSSWIRE_TARGET=server, LOSSWIRE_TOKEN="\n")  # noqa: S106 (no token at all)
    assert (ran.returncode, ran.stderr) == (
        2,
        "losswire: LOSSWIRE_TOKEN: expected printable ASCII text\n",
    )


def test_a_reader_that_leaves_is_no_error(server: str) -> None:
    """With the reading end of its output closed the command ends quietly, with 141."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [str(SCRIPT), "losses", "--server", server],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_an_error(server: str) -> None:
    """Output that cannot be written is a line and a status, not a success."""
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [str(SCRIPT), "ping", "--server", server],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ran.returncode == 4
    assert ran.stderr == "losswire: OSError: [Errno 28] No space left on device\n"


def test_an_interruption_is_quiet() -> None:
    """Ctrl-C during a call ends the command with 130 and without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        command = [str(SCRIPT), "losses", "--server", address, "--timeout", "50"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            connection, _ = listener.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_text_of_others_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences are shown, in results as in errors, and an error stays one line."""
    _common.say("a\x1b[2Jb\nc\x9bd")
    _common.complain("e\x1b[31m\n\r\x00f")
    out, err = capsys.readouterr()
    assert out == "a\\x1b[2Jb\nc\\x9bd\n"
    assert err == "losswire: e\\x1b[31m \\x00f\n"
