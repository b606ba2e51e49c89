"""The log as a whole: times with their zone, and the settings that are in effect."""

import json
import logging
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from losswire.server.log import JsonFormatter, log_settings
from losswire.server.settings import MIB, Settings
from tests.support.harness import Child

_SETTINGS = "losswire.server.settings"


def test_the_log_begins_with_all_settings_and_every_line_has_a_time_of_utc(tmp_path: Path) -> None:
    """Programs read the times without knowing where the server runs."""
    with Child(tmp_path / "log", "--max-message-mib", "3") as child:
        address = child.address
    first, *_ = entries = child.entries()
    assert (first["logger"], first["message"]) == (_SETTINGS, "settings")
    assert set(first["settings"]) == {each.name for each in fields(Settings)}
    assert first["settings"]["max_message_bytes"] == 3 * MIB
    assert first["settings"]["listen"] == "127.0.0.1:0"
    assert address
    for each in entries:
        time = datetime.fromisoformat(each["time"])
        assert time.utcoffset() == timedelta(0)
        assert each["time"].endswith("+00:00")
        assert abs(datetime.now(UTC) - time) < timedelta(hours=1)


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("/var/lib/losswire", "/var/lib/losswire"),
        ("none", "none"),
        ("postgresql://host/runs", "postgresql://host/runs"),
        ("postgresql+psycopg://me@host/runs", "postgresql+psycopg://me@host/runs"),
        ("postgresql://me:geheim@host:5/runs", "postgresql://me:***@host:5/runs"),
        ("postgresql://me:ge:he@i/m?@host/runs", "postgresql://me:***@host/runs"),
        ("postgresql://host/runs?password=geheim", "postgresql://host/runs?***"),
    ],
)
def test_no_secret_is_logged(store: str, shown: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the password of the store nor the tokens of files are in the line."""
    settings = Settings(
        threads=1,
        memory_budget_bytes=64 * MIB,
        store=store,
        http_files={"token-of-the-file": Path("/data/losses.csv")},
    )
    with caplog.at_level(logging.INFO, logger=_SETTINGS):
        log_settings(settings)
    [record] = caplog.records
    line = JsonFormatter().format(record)
    found = json.loads(line)["settings"]
    assert found["store"] == shown
    assert found["http_files"] == ["/data/losses.csv"]
    assert "token-of-the-file" not in line
