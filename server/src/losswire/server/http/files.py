"""Files that `losswire ui` opens: each at an address that nobody can guess, for the console alone.

They are read where they are and never copied; the console asks for the ranges that it needs.
"""

import errno
import os
import re
import stat
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from functools import partial
from hmac import compare_digest
from io import FileIO
from pathlib import Path
from typing import Final

from losswire.server.errors import UnknownPathError
from losswire.server.http.answer import Answer
from losswire.server.http.call import Call
from losswire.server.http.route import NPY, Parameter, Route
from losswire.server.http.threads import in_thread
from losswire.server.settings import MIB

_TEXT: Final = {"type": "string"}
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_PARTIAL, _UNSATISFIABLE = 206, 416
_HIDDEN: Final = "this path, or not any more"
_FROM_ITSELF: Final = ("same-origin", "none")
"""What a browser says of a request by a page of this server, and of an address that was typed."""


async def _send(call: Call) -> Answer:
    """Send a file, or a range of it."""
    path = _find(call)
    try:
        size = (await in_thread(path.stat, None)).st_size
    except OSError:
        raise UnknownPathError(_HIDDEN) from None
    asked = _range_of(call.headers.get("range", ""), size)
    start, end = (0, size) if asked is None else asked
    headers = {"accept-ranges": "bytes", "cross-origin-resource-policy": "same-origin"}
    if start >= end and asked is not None:
        headers["content-range"] = f"bytes */{size}"
        return Answer(status=_UNSATISFIABLE, media_type=NPY, headers=headers)
    headers["content-length"] = str(end - start)
    if asked is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    return Answer(
        status=200 if asked is None else _PARTIAL,
        media_type=NPY,
        # Not an empty sequence, whose length would be sent instead.
        body=_read(path, start, start if call.method == "HEAD" else end),
        headers=headers,
    )


def _find(call: Call) -> Path:
    """Return the file that a call names; UnknownPathError also to pages of other hosts."""
    token, name = call.path["token"], call.path["name"]
    if call.headers.get("sec-fetch-site", "none") in _FROM_ITSELF:
        for known, path in call.services.settings.http_files.items():
            if compare_digest(known.encode(), token.encode()) and path.name == name:
                return path
    raise UnknownPathError(_HIDDEN)


def _range_of(text: str, size: int) -> tuple[int, int] | None:
    """Return the range of bytes that is asked for; None for what is not a single range.

    It is empty where the file has none of it.
    """
    found = _RANGE.fullmatch(text)
    if found is None:
        return None
    first, last = found.groups()
    if not first:
        return (max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


async def _read(path: Path, start: int, end: int) -> AsyncGenerator[bytes]:
    """Yield a range of a file part by part."""
    if start >= end:
        return
    file = await in_thread(partial(_open, path), None)
    with closing(file):
        while start < end:
            part = await in_thread(
                partial(os.pread, file.fileno(), min(MIB, end - start), start), None
            )
            if not part:
                return
            start += len(part)
            yield part


def _open(path: Path) -> FileIO:
    """Open a file; OSError for what took its place and is none, such as a pipe without a writer."""
    file = FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "no file")
    return file


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/files/{token}/{name}",
        handler=_send,
        name="file",
        summary="A file that `losswire ui` opens",
        parameters=tuple(
            Parameter(name=each, description=what, schema=_TEXT, place="path", required=True)
            for each, what in (("token", "What nobody can guess"), ("name", "Its name"))
        ),
        answers={NPY: {"type": "string", "format": "binary"}},
        statuses=(200, _PARTIAL, _UNSATISFIABLE),
        problems=(404,),
        documented=False,
    ),
)
"""The route of the files in the settings."""
