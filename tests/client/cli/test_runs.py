"""`losswire runs`: how runs are named, and what is shown of them."""

import io
import json
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from losswire.client import Client
from losswire.client.cli import _common
from tests.client.cli.conftest import Run
from tests.support.process import running_server
from tests.support.runs import summary

_LABELS = ["DE", "DE", "FR", "FR"]


@pytest.fixture
def saved(server: str) -> Iterator[Callable[..., str]]:
    """Save a run with a name of this test's own, and return its id."""
    with Client(server) as client:

        def save(values: Sequence[float], name: str = "", **labels: str) -> str:
            message = summary(values, {"country": _LABELS[: len(values)]})
            return client.runs.save(message, name, labels).run_id

        yield save


def test_a_list_is_a_table_the_newest_first(losswire: Run, saved: Callable[..., str]) -> None:
    """With the filters of the SDK; times in UTC."""
    tag = str(uuid.uuid4())
    ids = [saved([1.0, 2.0, 6.0], f"n{each}", tag=tag) for each in range(3)]
    ran = losswire("runs", "list", "--label", f"tag={tag}", "--limit", "2")
    head, *rows = (line.split() for line in ran.out.splitlines())
    assert head == ["ID", "NAME", "LOSS", "SAVED", "ROWS", "MEAN", "LABELS"]
    assert [row[:3] for row in rows] == [
        [ids[each][:12], f"n{each}", "mse_loss"] for each in (2, 1)
    ]
    assert rows[0][5:] == ["3", "3", "±", "2.99389", f"tag={tag}"]
    ran = losswire("runs", "list", "--label", f"tag={tag}", "--name", "n1", "--json")
    [found] = json.loads(ran.out)
    assert (found["run_id"], found["labels"]) == (ids[1], {"tag": tag})
    assert found["figures"][0]["mean"] == 3.0
    assert losswire("runs", "list", "--loss", "nope").out.splitlines() == [
        "ID  NAME  LOSS  SAVED  ROWS  MEAN  LABELS"
    ]


def test_a_run_has_many_names(losswire: Run, saved: Callable[..., str]) -> None:
    """Its id, the beginning of it, its name, and the newest of a name."""
    name = f"nightly {uuid.uuid4()}"
    old = saved([1.0, 2.0], name)
    for written in (old, old[:20], name, f"{name}@latest"):
        assert json.loads(losswire("runs", "show", written, "--json").out)["run_id"] == old
    new = saved([1.0, 2.0], name)
    shown = losswire("runs", "show", f"{name}@latest", "--json")
    assert json.loads(shown.out)["run_id"] == new
    ran = losswire("runs", "show", name)
    assert (ran.status, ran.out) == (2, "")
    assert f'several runs have the name "{name}"; write {name}@latest, or an id' in ran.err


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("nowhere", 'no run has the id or the name "nowhere"'),
        ("nowhere@latest", 'no run has the name "nowhere"'),
        ("@latest", 'no run has the name ""'),
        ("", 'no run has the id or the name ""'),
    ],
)
def test_a_run_that_is_not_there_is_named(losswire: Run, written: str, text: str) -> None:
    """A wrong argument, status 2."""
    ran = losswire("runs", "show", written)
    assert (ran.status, ran.out) == (2, "")
    assert text in ran.err


def test_a_beginning_of_two_ids_is_refused(server: str, losswire: Run) -> None:
    """With those that begin so."""
    start = str(uuid.uuid4())
    with Client(server) as client:
        for end in "ab":
            client.runs.save(summary([1.0]), run_id=f"{start}-{end}")
    ran = losswire("runs", "show", start)
    assert ran.status == 2
    assert f"{start}-b, {start}-a" in ran.err


def test_show_tells_everything(losswire: Run, saved: Callable[..., str]) -> None:
    """Figures, quantiles and slices, as text and as JSON."""
    run_id = saved([1.0, 2.0, 6.0, 3.0], "shown", commit="abc")
    text = losswire("runs", "show", run_id).out
    lines = [line.split() for line in text.splitlines()]
    for expected in (
        ["id", run_id],
        ["label", "commit=abc"],
        ["loss", "mse_loss"],
        ["rows", "4"],
        ["mean", "3"],
        ["maximum", "6"],
        ["country", "ROWS", "MEAN", "95", "%", "INTERVAL"],
    ):
        assert expected in lines
    assert next(line for line in lines if line[:1] == ["DE"])[:3] == ["DE", "2", "1.5"]
    facts = json.loads(losswire("runs", "show", run_id, "--json").out)
    assert facts["total"]["mean"] == 3.0
    assert [each["labels"] for each in facts["slices"]["country"]] == [["DE"], ["FR"]]
    assert facts["slices"]["country"][1]["mean"] == 4.5


def test_show_compares_the_candidates_of_a_comparison(server: str, losswire: Run) -> None:
    """Paired differences with wins, ties and losses."""
    with Client(server) as client:
        both = summary([[1.0, 2.0, 3.0], [2.0, 2.0, 7.0]], candidates=("old", "new"))
        run_id = client.runs.save(both).run_id
    line = next(
        line for line in losswire("runs", "show", run_id).out.splitlines() if "old - new" in line
    )
    assert line.split()[3] == "-1.66667"
    assert line.endswith("2 / 1 / 0")


def test_text_of_others_cannot_control_the_terminal(server: str, losswire: Run) -> None:
    """Nor begin a line of its own."""
    with Client(server) as client:
        name = f"\x1b[31m{uuid.uuid4()}\nfake"
        run_id = client.runs.save(summary([1.0]), name, {"a": "b\nc"}).run_id
    listed = losswire("runs", "list", "--name", name)
    shown = losswire("runs", "show", run_id)
    assert "\x1b" not in listed.out + shown.out
    assert len(listed.out.splitlines()) == 2
    assert not [line for line in shown.out.splitlines() if line.startswith(("fake", "c"))]


def test_diff_is_side_by_side(losswire: Run, saved: Callable[..., str], tmp_path: Path) -> None:
    """A run and a file; by slice with correction; it says that rows are not paired."""
    run_id = saved([1.0, 2.0, 6.0, 3.0])
    file = tmp_path / "other"
    file.write_bytes(summary([1.5, 2.5, 6.5, 3.5], {"country": _LABELS}).SerializeToString())
    text = losswire("runs", "diff", run_id, str(file)).out
    assert "\nunpaired: " in text
    facts = json.loads(losswire("runs", "diff", run_id, str(file), "--json").out)
    [found] = facts["differences"]
    assert not facts["paired"]
    assert (found["total"]["first_mean"], found["total"]["difference"]) == (3.0, 0.5)
    variance = np.var([1.0, 2.0, 6.0, 3.0], ddof=1) / 4
    assert found["total"]["standard_error"] == pytest.approx(np.sqrt(2 * variance))
    assert found["slices"]["country"]["FR"]["first_mean"] == 4.5
    slices = found["slices"]["country"].values()
    lowest = min(slices, key=lambda each: each["p_value"])
    assert lowest["p_adjusted"] == pytest.approx(min(1, 2 * lowest["p_value"]))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        # 11 standard errors: as 1 minus the other tail, it would be 0.
        ([6.0, 6.5, 7.0, 7.5], 2 * NormalDist().cdf(-5 / math.sqrt(2 * 5 / 48))),
        ([1.0, 1.5, 2.0, 2.5], 1.0),
    ],
)
def test_p_values_of_a_diff_are_those_of_the_smaller_tail(
    losswire: Run, tmp_path: Path, other: Sequence[float], expected: float
) -> None:
    """In both directions, and 1 where there is no difference."""
    files = [tmp_path / name for name in ("one", "other")]
    for file, values in zip(files, ([1.0, 1.5, 2.0, 2.5], other), strict=True):
        file.write_bytes(summary(values).SerializeToString())
    for order in (files, files[::-1]):
        ran = losswire("runs", "diff", *map(str, order), "--json")
        [found] = json.loads(ran.out)["differences"]
        assert found["total"]["p_value"] == pytest.approx(expected, rel=1e-6)


def test_delete_asks_first(
    losswire: Run, saved: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal; elsewhere it needs --yes. A run that is not there deletes none."""
    first, second = saved([1.0]), saved([2.0])
    assert losswire("runs", "delete", first).status == 2

    class Terminal(io.StringIO):
        """A person who types."""

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert losswire("runs", "delete", first).err.endswith("nothing was deleted\n")
    assert losswire("runs", "delete", first, "nowhere", "--yes").status == 2
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert losswire("runs", "delete", first).out == f"{first} deleted\n"
    ran = losswire("runs", "delete", second, second, "--yes", "--json")
    assert json.loads(ran.out) == [{"run_id": second, "deleted": True}]
    assert losswire("runs", "show", first).status == 2


def test_a_server_without_a_store_is_status_4(losswire: Run) -> None:
    """With the server's own words."""
    with running_server() as address:
        ran = losswire("runs", "list", "--server", address)
    assert ran.status == _common.Exit.OTHER
    assert "--store FOLDER" in ran.err
