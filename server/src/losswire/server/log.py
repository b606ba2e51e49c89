"""The log: one JSON object on each line of standard error."""

import json
import logging
import sys


class JsonFormatter(logging.Formatter):
    """One JSON object per line, so that no text of a caller can forge a line."""

    def __init__(self, worker: int | None = None) -> None:
        """Format the records of one process; `worker` is its place among several."""
        super().__init__()
        self._process = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
        entry = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


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
