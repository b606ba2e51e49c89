"""RUN on the command line: from what was written to a run, or to the summary of a file."""

import re
from pathlib import Path

from google.protobuf.message import DecodeError

from losswire.client import Client, NotFoundError, Run
from losswire.client.cli._common import UsageError
from losswire.summaries import MergeError, check_message
from losswire.summaries.figures.increase import Evaluation
from losswire.v1 import summary_pb2

RUN_HELP = (
    "A RUN is an id, the beginning of one, a NAME that one run has, or NAME@latest for the newest "
    "run of that name."
)

_LATEST = "@latest"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SEARCHED = 10_000
"""How many of the newest runs are searched for the beginning of an id."""


def find_run(client: Client, text: str) -> Run:
    """Return a run with its summary; UsageError when there is none, or more than one."""
    name = text.removesuffix(_LATEST)
    if name != text:
        newest = next(client.runs.list(name=name, limit=1), None) if name else None
        if newest is None:
            message = f'no run has the name "{name}"'
            raise UsageError(message)
        return client.runs.get(newest.run_id)
    if _ID.fullmatch(text):
        try:
            return client.runs.get(text)
        except NotFoundError:
            pass
    found = list(client.runs.list(name=text, limit=2)) if text else []
    if len(found) > 1:
        message = f'several runs have the name "{text}"; write {text}{_LATEST}, or an id'
        raise UsageError(message)
    return client.runs.get((found[0] if found else _by_prefix(client, text)).run_id)


def _by_prefix(client: Client, text: str) -> Run:
    found = [
        each for each in client.runs.list(limit=_SEARCHED) if text and each.run_id.startswith(text)
    ]
    if not found:
        message = f'no run has the id or the name "{text}"'
        raise UsageError(message)
    if len(found) > 1:
        ids = ", ".join(each.run_id for each in found[:3])
        more = ", ..." if len(found) > 3 else ""  # noqa: PLR2004 (as many as are named)
        message = f'several runs have an id that begins with "{text}": {ids}{more}'
        raise UsageError(message)
    return found[0]


def find_summary(client: Client, text: str) -> Evaluation:
    """Return the summary of a file, if there is one of this name, or else of a run."""
    if Path(text).is_file():
        return Evaluation(text, _read(text))
    return Evaluation(text, find_run(client, text).message.summary)


def _read(file: str) -> summary_pb2.LossSummary:
    try:
        message = summary_pb2.LossSummary.FromString(Path(file).read_bytes())
        check_message(message)
    except (DecodeError, MergeError) as error:
        text = f"{file}: it is not a summary, as Summary.to_bytes() writes it"
        raise UsageError(text) from error
    except OSError as error:
        text = f"{file}: {error.strerror}"
        raise UsageError(text) from error
    return message
