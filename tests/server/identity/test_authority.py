"""The command that makes a private authority, and certificates of a server and a caller."""

import argparse
import stat
from pathlib import Path

import pytest
from cryptography import x509

from losswire.server.identity.commands import add_commands


def _run(*arguments: str) -> int:
    """Run a command as the command line does."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def _read(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


def test_the_command_makes_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The server's certificate has all names, keys are private, and the flags are printed."""
    folder = tmp_path / "pems"
    hosts = ["losswire.example", "10.1.2.3"]
    arguments = [text for each in hosts for text in ("--host", each)]
    assert _run("tls", "--out", str(folder), "--tenant", "team-a", *arguments) == 0
    printed = capsys.readouterr().out
    for name in ("server", "server-key", "ca", "client", "client-key"):
        assert str(folder / f"{name}.pem") in printed
    found = _read(folder, "server").extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert found.value.get_values_for_type(x509.DNSName) == ["localhost", "losswire.example"]
    addresses = found.value.get_values_for_type(x509.IPAddress)
    assert [str(each) for each in addresses] == ["127.0.0.1", "::1", "10.1.2.3"]
    assert _read(folder, "client").subject.rfc4514_string() == "CN=team-a"
    for each in folder.iterdir():
        private = each.name.endswith("-key.pem")
        assert stat.S_IMODE(each.stat().st_mode) == (0o600 if private else 0o644)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_called_again_it_renews(tmp_path: Path) -> None:
    """The authority stays, and issues new certificates with new keys."""
    assert _run("tls", "--out", str(tmp_path)) == 0
    names = ("ca", "ca-key", "server", "server-key")
    before = {name: (tmp_path / f"{name}.pem").read_bytes() for name in names}
    assert _run("tls", "--out", str(tmp_path)) == 0
    after = {name: (tmp_path / f"{name}.pem").read_bytes() for name in names}
    assert [before[name] == after[name] for name in names] == [True, True, False, False]
    _read(tmp_path, "server").verify_directly_issued_by(_read(tmp_path, "ca"))


def test_what_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong host, and an authority whose key is another's, end the command with a sentence."""
    assert _run("tls", "--out", str(tmp_path / "a"), "--host", "no..host") == 2
    assert "no..host" in capsys.readouterr().err
    assert _run("tls", "--out", str(tmp_path / "b")) == 0
    key = (tmp_path / "a" / "ca-key.pem").read_bytes()
    (tmp_path / "b" / "ca-key.pem").write_bytes(key)
    assert _run("tls", "--out", str(tmp_path / "b")) == 2
    (tmp_path / "b" / "ca-key.pem").write_bytes(b"none")
    assert _run("tls", "--out", str(tmp_path / "b")) == 2
    assert "losswire-server: " in capsys.readouterr().err
