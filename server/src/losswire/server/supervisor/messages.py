"""What a supervisor and its workers tell each other: lines of JSON over a pair of sockets."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from losswire.server.settings import Place, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a worker says all the time: that its event loop runs, and how its engine is."""

    is_ready: bool = False
    """Whether the worker accepts calls and computes them right."""
    is_live: bool = True
    """Whether it should go on."""
    address: str = ""
    """Where it listens; empty before it does."""
    failure: str = ""
    """Why it cannot start; empty unless it ends for that."""


def settings_line(settings: Settings) -> bytes:
    """Return the settings of a worker as a line."""
    return _line(asdict(settings))


def read_settings(line: bytes) -> Settings:
    """Return the settings in a line."""
    given: dict[str, Any] = json.loads(line)
    lists = {name: tuple(given[name]) for name in ("http_cors", "losses")}
    place = Place(**given["place"])
    return Settings(**{**given, **lists, "place": place})


def beat_line(beat: Beat) -> bytes:
    """Return a beat as a line."""
    return _line(asdict(beat))


def read_beat(line: bytes) -> Beat:
    """Return the beat in a line."""
    return Beat(**json.loads(line))


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"
