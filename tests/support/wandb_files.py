"""Reads what Weights & Biases writes while it is offline."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined] # it is made at run time

_HEADER = 7
"""Bytes at the beginning of the file: a mark, a magic number, the version."""
_BLOCK = 32768
"""Records are cut where blocks end, as in LevelDB's log."""
_FULL, _FIRST, _LAST = 1, 2, 4


def records(folder: Path) -> Iterator[Record]:
    """Return the records of the only run in a folder."""
    [path] = folder.rglob("*.wandb")
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, parts = _HEADER, b""
    while at + 7 <= len(data):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part = data[at + 7 : at + 7 + length]
        at += 7 + length
        parts = part if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            yield Record.FromString(parts)


def history(folder: Path) -> list[dict[str, Any]]:
    """Return the logged values of each step."""
    steps = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            step: dict[str, Any] = {}
            for item in record.history.item:
                *outer, last = item.nested_key or [item.key]
                inner = step
                for name in outer:
                    inner = inner.setdefault(name, {})
                inner[last] = json.loads(item.value_json)
            steps.append(step)
    return steps


def config(folder: Path) -> dict[str, Any]:
    """Return the settings of the run."""
    found = {}
    for record in records(folder):
        kind = record.WhichOneof("record_type")
        if kind in ("config", "run"):
            update = record.config if kind == "config" else record.run.config
            for item in update.update:
                found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return found
