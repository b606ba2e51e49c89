"""Tokens: the file of their hashes, whose they are, and the commands that change the file."""

import argparse
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from losswire.server.identity.commands import add_commands
from losswire.server.identity.files import BrokenFileError
from losswire.server.identity.principal import Principal
from losswire.server.identity.tokens import (
    TokenHash,
    Tokens,
    digest_of,
    new_token,
)

_HASH = "0" * 64
_PAST = "2020-01-01T00:00:00Z"


def _run(*arguments: str) -> int:
    """Run a command as the command line does."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def _new(capsys: pytest.CaptureFixture[str], path: Path, tenant: str, *more: str) -> str:
    assert _run("token", "new", tenant, "--file", str(path), *more) == 0
    return capsys.readouterr().out.strip()


def test_a_token_is_found_by_what_was_sent(tmp_path: Path) -> None:
    """A known token names its tenant; any other one nobody."""
    token, other = new_token(), new_token()
    path = tmp_path / "tokens"
    path.write_text(f"# ours\n\nteam-a sha256:{digest_of(token)}\n", encoding="utf-8")
    tokens = Tokens.read(path)
    assert token.startswith("lw_")
    assert len(token) == len("lw_") + 43
    assert tokens.find(token) == Principal("team-a")
    assert [tokens.find(each) for each in (other, "", token[:-1], "\udcff")] == [None] * 4


def test_a_token_ends_to_be_valid() -> None:
    """A token is valid until its time, and not from then on."""
    now = datetime.now(UTC)
    token, other = new_token(), new_token()
    tokens = Tokens(
        [
            TokenHash("a", digest_of(token), now + timedelta(hours=1)),
            TokenHash("a", digest_of(other), now - timedelta(seconds=1)),
        ]
    )
    assert tokens.find(token) == Principal("a")
    assert tokens.find(other) is None


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("team", "the second word must be sha256:"),
        ("team lw_secret", "the second word must be sha256:"),
        (f"team sha256:{_HASH[1:]}", "the second word must be sha256:"),
        (f"te/am sha256:{_HASH}", "cannot name a tenant"),
        (f"{'a' * 65} sha256:{_HASH}", "cannot name a tenant"),
        (f"team sha256:{_HASH} until=tomorrow", "is no time with a zone"),
        (f"team sha256:{_HASH} until=2030-01-01T00:00:00", "is no time with a zone"),
        (f"team sha256:{_HASH} since=2030-01-01", "after the hash"),
        (f"a sha256:{_HASH}\nb sha256:{_HASH}", "the hash is there twice"),
        ("\n".join(f"a sha256:{each * 64}" for each in "123"), "more than 2 valid tokens"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(tmp_path: Path, line: str, mistake: str) -> None:
    """A broken file is refused with the place of its mistake, and never with what may be secret."""
    path = tmp_path / "tokens"
    path.write_text(f"# first\n{line}\n", encoding="utf-8")
    with pytest.raises(BrokenFileError) as caught:
        Tokens.read(path)
    number = 1 + len(line.splitlines())
    assert str(caught.value).startswith(f"{path}:{number}: ")
    assert mistake in str(caught.value)
    assert "lw_secret" not in str(caught.value)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """A file that is missing, or no text, is refused by its name."""
    with pytest.raises(BrokenFileError, match="No such file"):
        Tokens.read(tmp_path / "tokens")
    (tmp_path / "tokens").write_bytes(b"\xff\xfe")
    with pytest.raises(BrokenFileError, match="UTF-8"):
        Tokens.read(tmp_path / "tokens")


def test_expired_tokens_do_not_count(tmp_path: Path) -> None:
    """A tenant may have any number of expired tokens beside two that are valid."""
    lines = [f"a sha256:{each * 64} until={_PAST}" for each in "123"]
    lines += [f"a sha256:{each * 64}" for each in "45"]
    path = tmp_path / "tokens"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert len(Tokens.read(path)) == 5


def test_a_new_token_takes_the_place_of_the_older_of_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two tokens of a tenant are valid at a time: a third one ends the oldest."""
    path = tmp_path / "tokens"
    first, second = _new(capsys, path, "a"), _new(capsys, path, "a")
    other = _new(capsys, path, "b")
    assert Tokens.read(path).find(first) == Principal("a")
    third = _new(capsys, path, "a")
    tokens = Tokens.read(path)
    assert [tokens.find(each) for each in (first, second, third, other)] == [
        None,
        *[Principal("a")] * 2,
        Principal("b"),
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(each not in path.read_text(encoding="utf-8") for each in (first, second, third))


def test_the_commands_keep_comments_and_the_mode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the operator wrote stays, also who may read the file."""
    path = tmp_path / "tokens"
    path.write_text("# who: ops\n", encoding="utf-8")
    path.chmod(0o640)
    _new(capsys, path, "a", "--until", "2099-12-31T01:00:00+01:00")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# who: ops"
    assert lines[1].endswith(" until=2099-12-31T00:00:00Z")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["tokens"]


def test_tokens_are_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list names each token without revealing it, and by that name it can be removed alone."""
    path = tmp_path / "tokens"
    first, second = _new(capsys, path, "a"), _new(capsys, path, "a")
    _new(capsys, path, "b", "--until", "2099-01-01T00:00:00Z")
    assert _run("token", "list", "--file", str(path)) == 0
    rows = [each.split("\t") for each in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["a", digest_of(first)[:12]],
        ["a", digest_of(second)[:12]],
        ["b", rows[2][1], "until 2099-01-01T00:00:00Z"],
    ]
    assert _run("token", "revoke", "a", rows[0][1], "--file", str(path)) == 0
    tokens = Tokens.read(path)
    assert (tokens.find(first), tokens.find(second)) == (None, Principal("a"))
    assert _run("token", "revoke", "a", "--file", str(path)) == 0
    assert Tokens.read(path).find(second) is None
    assert _run("token", "revoke", "a", "--file", str(path)) == 2


def test_the_commands_refuse_what_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file with a mistake is not changed, and a missing one is only made by `new`."""
    path = tmp_path / "tokens"
    assert _run("token", "list", "--file", str(path)) == 2
    assert _run("token", "revoke", "a", "--file", str(path)) == 2
    assert not path.exists()
    path.write_text("a b\n", encoding="utf-8")
    assert _run("token", "new", "a", "--file", str(path)) == 2
    assert path.read_text(encoding="utf-8") == "a b\n"
    assert f"losswire-server: {path}:1: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        _run("token", "new", "no/name", "--file", str(path))
