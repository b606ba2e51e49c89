"""What each of several workers may take, and how it is told."""

import pytest

from losswire.server.settings import Place, Settings
from losswire.server.supervisor.messages import (
    Beat,
    beat_line,
    read_beat,
    read_settings,
    settings_line,
)
from losswire.server.supervisor.shares import share_of

_ALL = Settings(
    listen="127.0.0.1:0",
    threads=5,
    memory_budget_bytes=1000,
    resident_quota_bytes=300,
    region_quota_bytes=200,
    region_socket="/regions/losswire.sock",
    losses=("one", "two"),
    http_cors=("https://example.org",),
)


def _place(index: int, count: int) -> Place:
    return Place(index=index, count=count, listen="127.0.0.1:50051", folder="/nowhere")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_shares_are_all_there_is(count: int) -> None:
    """No thread and no byte is given twice; every worker has a thread."""
    shares = [share_of(_ALL, _place(index, count)) for index in range(count)]
    assert sum(each.threads for each in shares) == max(5, count)
    assert sum(each.memory_budget_bytes for each in shares) <= 1000
    assert sum(each.resident_quota_bytes for each in shares) <= 300
    assert sum(each.region_quota_bytes for each in shares) <= 200
    assert {each.listen for each in shares} == {"127.0.0.1:50051"}
    assert len({each.region_socket for each in shares}) == count


def test_messages_arrive_as_they_were_sent() -> None:
    """Settings and signs of life are the same behind the connection."""
    settings = share_of(_ALL, _place(1, 2))
    assert read_settings(settings_line(settings)) == settings
    beat = Beat(is_ready=True, is_live=False, address="127.0.0.1:1", failure="a reason")
    assert read_beat(beat_line(beat)) == beat
