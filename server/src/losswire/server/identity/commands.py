"""The commands that make what identity needs: `losswire-server token` and `tls`."""

import argparse
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from losswire.server.identity import thresholds
from losswire.server.identity.files import BrokenFileError
from losswire.server.identity.tokens import (
    TokenHash,
    check_tenant,
    digest_of,
    new_token,
    parse_line,
    parse_tokens,
    parse_until,
    read_text,
)

_SHOWN_DIGITS = 12
"""The digits of a hash that name a token."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands; the parsed arguments have `run`, which returns the exit status."""
    token = commands.add_parser(
        "token",
        help="make, list and revoke the tokens of callers",
        description="Make, list and revoke the tokens in the file of --tokens, which a server that "
        "runs reads again within a second.",
    )
    actions = token.add_subparsers(required=True, metavar="ACTION")
    new = _action(actions, "new", "make a token, and print it once", _new)
    _add_tenant(new)
    new.add_argument(
        "--until",
        type=_until,
        metavar="TIME",
        help="when it ends to be valid, such as 2026-12-31T00:00:00Z (default: never)",
    )
    _action(actions, "list", "print whose tokens there are, by the begin of their hashes", _list)
    revoke = _action(actions, "revoke", "remove the tokens of a tenant", _revoke)
    _add_tenant(revoke)
    revoke.add_argument(
        "id", nargs="?", default="", metavar="ID", help="only that one, as `list` names it"
    )

    tls = commands.add_parser(
        "tls",
        help="make a private authority, and certificates of a server and a caller",
        description="Make a private authority, and certificates of a server and a caller, which "
        "are valid for 397 days. Called again, make new certificates with the authority that is "
        "there; a server that runs takes them within a second. Needs `losswire-server[tls]`.",
    )
    tls.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write")
    tls.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name or an address by which callers reach the server, beside localhost; may be "
        "repeated",
    )
    tls.add_argument(
        "--tenant",
        type=_tenant,
        default="client",
        metavar="TENANT",
        help="whom the caller's certificate names (default: client)",
    )
    tls.set_defaults(run=_tls)


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    run: object,
) -> argparse.ArgumentParser:
    """Add an action on a file of tokens."""
    action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    action.add_argument("--file", type=Path, required=True, help="the file of --tokens")
    action.set_defaults(run=run)
    return action


def _add_tenant(action: argparse.ArgumentParser) -> None:
    action.add_argument("tenant", type=_tenant, metavar="TENANT", help="whose token it is")


def _tenant(text: str) -> str:
    try:
        return check_tenant(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _until(text: str) -> datetime:
    try:
        return parse_until(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _new(options: argparse.Namespace) -> int:
    """Add a token; of two that its tenant has, the older one goes."""
    token = new_token()
    try:
        with _edited(options.file) as lines:
            valid = [
                each for each in _hashes_of(lines, options.tenant) if each.is_valid(time.time())
            ]
            for each in valid[: len(valid) + 1 - thresholds.TOKENS_PER_TENANT]:
                _drop(lines, [each.digest])
                _say(f"the older token {each.digest[:_SHOWN_DIGITS]} is not valid any more")
            lines.append(TokenHash(options.tenant, digest_of(token), options.until).line)
    except (BrokenFileError, OSError) as error:
        return _fail(error)
    print(token)  # noqa: T201 (a command line prints)
    return 0


def _list(options: argparse.Namespace) -> int:
    """Print the tokens."""
    try:
        found = parse_tokens(read_text(options.file), str(options.file))
    except BrokenFileError as error:
        return _fail(error)
    now = time.time()
    for each in found:
        end = "" if each.until is None else f"until {each.until:%Y-%m-%dT%H:%M:%SZ}"
        state = end if each.is_valid(now) else f"expired, {end}"
        print(f"{each.tenant}\t{each.digest[:_SHOWN_DIGITS]}\t{state}".rstrip())  # noqa: T201 (likewise)
    return 0


def _revoke(options: argparse.Namespace) -> int:
    """Remove the tokens of a tenant, or one of them."""
    try:
        # One that is missing must not be made.
        read_text(options.file)
        with _edited(options.file) as lines:
            digests = [
                each.digest
                for each in _hashes_of(lines, options.tenant)
                if each.digest.startswith(options.id)
            ]
            _drop(lines, digests)
    except (BrokenFileError, OSError) as error:
        return _fail(error)
    if not digests:
        return _fail(f"{options.file}: {options.tenant} has no such token")
    _say(f"{len(digests)} removed")
    return 0


def _tls(options: argparse.Namespace) -> int:
    """Make the certificates, and print what to do with them."""
    folder: Path = options.out
    try:
        # Imported here: the package is an extra.
        from losswire.server.identity.authority import Authority  # noqa: PLC0415
    except ImportError:
        return _fail("this needs a package: pip install 'losswire-server[tls]'")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / "ca.pem").exists():
            authority = Authority.read(folder)
        else:
            authority = Authority.make()
            authority.write(folder)
        authority.issue_server(folder, options.host)
        authority.issue_client(folder, options.tenant)
    except (BrokenFileError, ValueError, OSError) as error:
        return _fail(error)
    server = f"--tls-cert {folder / 'server.pem'} --tls-key {folder / 'server-key.pem'}"
    print(  # noqa: T201 (a command line prints)
        f"server:  {server}\n"
        f"         and, for callers with certificates only: --tls-client-ca {folder / 'ca.pem'}\n"
        f"callers: {folder / 'ca.pem'}, the authority to trust\n"
        f"         and, as {options.tenant}: {folder / 'client.pem'} with "
        f"{folder / 'client-key.pem'}\n"
        f"secret:  {folder / 'ca-key.pem'}, which no server needs"
    )
    return 0


def _hashes_of(lines: Sequence[str], tenant: str) -> list[TokenHash]:
    """Return the tokens of a tenant, the oldest first."""
    found = [each for line in lines if (each := parse_line(line)) is not None]
    return [each for each in found if each.tenant == tenant]


def _drop(lines: list[str], digests: Sequence[str]) -> None:
    """Remove the lines with some hashes."""
    lines[:] = [
        line for line in lines if (each := parse_line(line)) is None or each.digest not in digests
    ]


@contextmanager
def _edited(path: Path) -> Iterator[list[str]]:
    """Lend the lines of a file, and replace the file by them in one step.

    The file need not exist. Raises BrokenFileError for one with a mistake, OSError.
    """
    target = path.resolve()
    with _locked(target.parent):
        text = read_text(target) if target.exists() else ""
        parse_tokens(text, str(path))
        lines = text.splitlines()
        yield lines
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        _replace(target, "".join(f"{each}\n" for each in lines), mode)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other such commands from a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str, mode: int) -> None:
    """Replace a file in one step: who reads it sees the old or the new one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 (a command line prints)


def _fail(error: object) -> int:
    """Print an error; returns the exit status."""
    _say(f"losswire-server: {error}")
    return 2
