"""The console: the static files of the folder `console`, which is shipped with the server."""

import gzip
import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from losswire.server.errors import UnknownPathError
from losswire.server.http.answer import Answer
from losswire.server.http.call import Call
from losswire.server.http.route import Route

CONSOLE: Final = Path(__file__).parent.parent / "console"
"""The folder of the console's files."""

_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""The files that are served, by their ending."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_INLINE: Final = re.compile(rb"<script[^>]*type=\"importmap\"[^>]*>(.*?)</script>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _File:
    """One file as it is sent."""

    data: bytes
    compressed: bytes
    tag: str
    policy: str


async def get_console(call: Call) -> Answer:
    """Send the console's page."""
    return _send(call, "index.html")


async def get_console_file(call: Call) -> Answer:
    """Send a file of the console."""
    return _send(call, call.path["rest"])


def _send(call: Call, name: str) -> Answer:
    """Send a file, or 304 to a caller who has it already."""
    file = CONSOLE / name
    # No name that begins with a dot, and none with an empty or absolute part.
    if not _NAME.fullmatch(name) or file.suffix not in _TYPES or not file.is_file():
        raise UnknownPathError(f"/console/{name}")
    state = file.stat()
    found = _read(file, state.st_mtime_ns, state.st_size)
    packs = "gzip" in call.headers.get("accept-encoding", "")
    # The two forms of a file are two representations, each with its own tag.
    tag = f'"{found.tag}-gzip"' if packs else f'"{found.tag}"'
    headers = {
        "etag": tag,
        "vary": "accept-encoding",
        "cache-control": "no-cache",
        "content-security-policy": found.policy,
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
    }
    media_type = _TYPES[file.suffix]
    if tag in call.headers.get("if-none-match", "").replace("W/", "").split(", "):
        return Answer(status=304, media_type=media_type, headers=headers)
    if packs:
        headers["content-encoding"] = "gzip"
    body = found.compressed if packs else found.data
    return Answer(media_type=media_type, body=(body,), headers=headers)


@lru_cache(maxsize=64)
def _read(file: Path, changed: int, size: int) -> _File:
    """Read a file and compress it, once for each of its versions."""
    del changed, size  # they are the version
    data = file.read_bytes()
    return _File(
        data=data,
        compressed=gzip.compress(data, mtime=0),
        tag=hashlib.sha256(data).hexdigest()[:32],
        policy=_policy(data if file.suffix == ".html" else b""),
    )


def _policy(page: bytes) -> str:
    """Return the content security policy of a page: own files only, and its import map."""
    found = [hashlib.sha256(each).digest() for each in _INLINE.findall(page)]
    scripts = "".join(f" 'sha256-{b64encode(each).decode()}'" for each in found)
    return (
        f"default-src 'none'; script-src 'self'{scripts}; style-src 'self'; "
        "img-src 'self' data: blob:; connect-src 'self'; worker-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


ROUTES: Final = (
    Route(
        path="/",
        handler=get_console,
        name="getConsole",
        is_open=True,
        summary="The console",
        tag="console",
        answers={"text/html": {"type": "string"}},
        documented=False,
    ),
    Route(
        path="/console/{rest:path}",
        handler=get_console_file,
        name="getConsoleFile",
        is_open=True,
        summary="A file of the console",
        tag="console",
        answers={"text/html": {"type": "string"}},
        documented=False,
    ),
)
