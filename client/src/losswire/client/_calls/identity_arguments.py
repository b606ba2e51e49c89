"""The arguments that say who a client is and whom it trusts, and the variables in their place."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypedDict, TypeVar

import grpc

_T = TypeVar("_T")
FilePath: TypeAlias = str | os.PathLike[str]

VARIABLES: Final = {
    "token": "LOSSWIRE_TOKEN",
    "token_file": "LOSSWIRE_TOKEN_FILE",
    "tls": "LOSSWIRE_TLS",
    "tls_ca": "LOSSWIRE_TLS_CA",
    "tls_cert": "LOSSWIRE_TLS_CLIENT_CERT",
    "tls_key": "LOSSWIRE_TLS_CLIENT_KEY",
}
"""The variables that are read where an argument is not given."""
_TOGETHER: Final = (("token", "token_file"), ("tls_cert", "tls_key"))
"""Arguments of one thing: with one of them given, no variable of the others is read."""


class IdentityFields(TypedDict, total=False):
    """Who a client is and whom it trusts.

    Each but `credentials` is read from a variable where it is not given: `LOSSWIRE_TOKEN`,
    `LOSSWIRE_TOKEN_FILE`, `LOSSWIRE_TLS` (0 or 1), `LOSSWIRE_TLS_CA`,
    `LOSSWIRE_TLS_CLIENT_CERT` and `LOSSWIRE_TLS_CLIENT_KEY`.
    """

    token: str | None
    """Sent with each call as `authorization: Bearer`; printable ASCII text."""
    token_file: FilePath | None
    """A file that has the token, and is read again when it changes."""
    tls: bool | None
    """Whether connections are encrypted, and servers prove who they are. None: with a certificate,
    and with a token to servers that other machines may be. False sends a token in the clear."""
    tls_ca: FilePath | None
    """The certificates, in PEM, of who vouches for servers; None: those that gRPC comes with."""
    tls_cert: FilePath | None
    """The client's own certificate, in PEM, for servers that ask for one."""
    tls_key: FilePath | None
    """Its private key, in PEM, not encrypted."""
    credentials: grpc.ChannelCredentials | None
    """gRPC's own object, in place of all that begins with `tls`."""


@dataclass(frozen=True, slots=True)
class Given(Generic[_T]):
    """A value, and what errors call it: an argument or a variable."""

    name: str
    value: _T

    def refuse(self, why: str) -> ValueError:
        """Return the error of this value."""
        return ValueError(f"{self.name}: {why}")


@dataclass(frozen=True, slots=True)
class Arguments:
    """What was given, by argument or variable; None where nothing was."""

    token: Given[str] | None
    token_file: Given[Path] | None
    tls: Given[bool] | None
    tls_ca: Given[Path] | None
    tls_cert: Given[Path] | None
    tls_key: Given[Path] | None
    credentials: grpc.ChannelCredentials | None

    @property
    def files(self) -> tuple[Given[Path], ...]:
        """The files of certificates and keys."""
        return tuple(each for each in (self.tls_ca, self.tls_cert, self.tls_key) if each)

    @property
    def beyond_this_process(self) -> str:
        """The name of what makes no sense in this process; empty where nothing does."""
        if self.credentials is not None:
            return "credentials"
        if self.tls is not None and self.tls.value:
            return self.tls.name
        return self.files[0].name if self.files else ""


def read_arguments(
    fields: IdentityFields, environment: Mapping[str, str] | None = None
) -> Arguments:
    """Read what was given; TypeError or ValueError with its name for what cannot be meant.

    No file is opened. `environment` is this process's own where it is None.
    """
    for name in fields:
        if name not in IdentityFields.__annotations__:
            raise TypeError(f"a client has no argument {name!r}")
    if environment is None:
        environment = os.environ
    given: dict[str, object] = {name: each for name, each in fields.items() if each is not None}
    arguments = frozenset(given)
    names = {name: name for name in VARIABLES}
    has_own_tls = "credentials" in arguments or given.get("tls") is False
    for name, variable in VARIABLES.items():
        together = next((each for each in _TOGETHER if name in each), (name,))
        is_replaced = has_own_tls and name.startswith("tls")
        text = environment.get(variable)
        if text and not is_replaced and arguments.isdisjoint(together):
            given[name], names[name] = text, variable
    return _checked(given, names, fields.get("credentials"))


def _checked(
    given: Mapping[str, object],
    names: Mapping[str, str],
    credentials: grpc.ChannelCredentials | None,
) -> Arguments:
    arguments = Arguments(
        token=_token(given, names),
        token_file=_path("token_file", given, names),
        tls=_switch(given, names),
        tls_ca=_path("tls_ca", given, names),
        tls_cert=_path("tls_cert", given, names),
        tls_key=_path("tls_key", given, names),
        credentials=credentials,
    )
    if arguments.token and arguments.token_file:
        raise arguments.token.refuse(f"give this or {arguments.token_file.name}, not both")
    if credentials is not None and (arguments.tls or arguments.files):
        both = arguments.tls or arguments.files[0]
        raise ValueError(f"credentials: give this or {both.name}, not both")
    if arguments.tls_cert and not arguments.tls_key:
        raise arguments.tls_cert.refuse("a certificate needs its key, tls_key")
    if arguments.tls_key and not arguments.tls_cert:
        raise arguments.tls_key.refuse("a key needs its certificate, tls_cert")
    return _without_contradiction(arguments, names)


def _without_contradiction(arguments: Arguments, names: Mapping[str, str]) -> Arguments:
    """Refuse files where TLS is off, unless one is an argument and the other a variable."""
    tls = arguments.tls
    if tls is None or tls.value or not arguments.files:
        return arguments
    own = [each for each in arguments.files if each.name in names]
    if tls.name == "tls" or not own:
        raise tls.refuse(f"without TLS, {arguments.files[0].name} cannot be used")
    # The argument wins.
    return replace(arguments, tls=None)


def _token(given: Mapping[str, object], names: Mapping[str, str]) -> Given[str] | None:
    token = given.get("token")
    if token is None:
        return None
    if not isinstance(token, str):
        raise TypeError(f"{names['token']}: expected text, got {type(token).__name__}")
    return Given(names["token"], check_token(names["token"], token))


def check_token(name: str, token: str) -> str:
    """Return a token that a header can carry; ValueError, which never has the token."""
    if not token or not (token.isascii() and token.isprintable()):
        raise ValueError(f"{name}: expected printable ASCII text")
    return token


def _path(field: str, given: Mapping[str, object], names: Mapping[str, str]) -> Given[Path] | None:
    path = given.get(field)
    if path is None:
        return None
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{names[field]}: expected a path, got {type(path).__name__}")
    return Given(names[field], Path(path))


def _switch(given: Mapping[str, object], names: Mapping[str, str]) -> Given[bool] | None:
    tls = given.get("tls")
    if tls is None:
        return None
    if names["tls"] != "tls":
        if tls not in ("0", "1"):
            raise ValueError(f"{names['tls']}: expected 0 or 1, got {tls!r}")
        return Given(names["tls"], tls == "1")
    if not isinstance(tls, bool):
        raise TypeError(f"tls: expected True, False or None, got {tls!r}")
    return Given("tls", tls)
