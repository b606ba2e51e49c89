"""The log: one JSON object on each line of standard error."""

import json
import logging
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_settings_log = logging.getLogger("losswire.server.settings")

HIDDEN: Final = "***"
"""Stands for what the log must not tell."""

_PASSWORD: Final = re.compile(r"(?<=://)([^:/?#@]*):.*@", re.DOTALL)
"""The user and the password of a URL; the password may have any character."""

_PARAMETERS: Final = re.compile(r"(?<=\?).*", re.DOTALL)
"""The parameters of a URL, one of which may be a password."""


class JsonFormatter(logging.Formatter):
    """One JSON object per line, so that no text of a caller can forge a line.

    A record's attribute `fields`, a mapping, has further members of the object.
    """

    def __init__(self, worker: int | None = None) -> None:
        """Format the records of one process; `worker` is its place among several."""
        super().__init__()
        self._process = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._process,
            "message": record.getMessage(),
            **record.__dict__.get("fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def set_up_log(level: str) -> None:
    """Write records from a level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(capture=True)
    # It tells at its import which plugins it has, each with a line.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)


def name_worker(index: int) -> None:
    """Write the place of this process among several into its records."""
    for each in logging.getLogger().handlers:
        each.setFormatter(JsonFormatter(index))


def log_settings(settings: "DataclassInstance") -> None:
    """Write one line with the settings that are in effect, without secrets."""
    given: dict[str, Any] = asdict(settings)
    shown = {
        **given,
        "store": without_secrets(str(given["store"])),
        # Whoever knows the token of a file may read it.
        "http_files": sorted(map(str, given["http_files"].values())),
    }
    _settings_log.info("settings", extra={"fields": {"settings": shown}})


def without_secrets(text: str) -> str:
    """Return a folder as it is, and a URL without its password and parameters."""
    if "://" not in text:
        return text
    return _PARAMETERS.sub(HIDDEN, _PASSWORD.sub(rf"\1:{HIDDEN}@", text))
