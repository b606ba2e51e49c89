"""Settings from flags, variables and a file: which one counts, and what is told of wrong ones."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from losswire.server.cli import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of settings."""
    path = tmp_path / "losswire.toml"
    path.write_text('listen = "127.0.0.1:1"\nworkers = 2\nlosses = ["one", "two"]\n')
    return path


def _printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, tuple[object, str]]:
    """Return the settings that are printed, each with where it comes from."""
    assert main(["serve", "--print-config", *arguments]) == 0
    out = capsys.readouterr().out
    origins = {
        line.split(" = ")[0].strip("# "): line.rpartition("  # ")[2] for line in out.splitlines()
    }
    values = tomllib.loads(out)
    return {name: (values.get(name), origin) for name, origin in origins.items()}


def test_a_flag_counts_more_than_a_variable_and_that_more_than_a_key(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source is asked in this order, and `--print-config` says which it was."""
    monkeypatch.setenv("LOSSWIRE_WORKERS", "3")
    monkeypatch.setenv("LOSSWIRE_DRAIN_SECONDS", "4.5")
    found = _printed(capsys, "--config", str(file), "--drain-seconds", "7")
    assert found["listen"] == ("127.0.0.1:1", f"{file}: listen")
    assert found["workers"] == (3, "LOSSWIRE_WORKERS")
    assert found["drain_seconds"] == (7.0, "--drain-seconds")
    assert found["losses"] == (["one", "two"], f"{file}: losses")
    assert found["max_message_mib"] == (8, "default")


def test_the_file_may_be_named_by_a_variable(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, whose arguments are the image's."""
    monkeypatch.setenv("LOSSWIRE_CONFIG", str(file))
    assert _printed(capsys)["workers"] == (2, f"{file}: workers")


def test_what_is_printed_is_a_file_of_the_same_settings(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Printed, read and printed again, the values are the same."""
    first = _printed(capsys, "--config", str(file), "--allow-insecure", "--device", "cpu")
    main(["serve", "--print-config", "--config", str(file), "--allow-insecure", "--device", "cpu"])
    again = tmp_path / "again.toml"
    again.write_text(capsys.readouterr().out)
    second = _printed(capsys, "--config", str(again))
    assert {name: value for name, (value, _) in first.items()} == {
        name: value for name, (value, _) in second.items()
    }


def test_lists_and_switches_as_variables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names have commas between them; a switch is a word."""
    monkeypatch.setenv("LOSSWIRE_HTTP_CORS", "https://a.example, https://b.example")
    monkeypatch.setenv("LOSSWIRE_ALLOW_INSECURE", "yes")
    found = _printed(capsys)
    assert found["http_cors"][0] == ["https://a.example", "https://b.example"]
    assert found["allow_insecure"][0] is True


def test_no_password_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the address of a store, what `losswire` shows elsewhere."""
    url = "postgresql+psycopg://me:geheim@db.example/runs"
    main(["serve", "--print-config", "--store", url])
    out = capsys.readouterr().out
    assert "geheim" not in out
    assert "db.example" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wrokers = 2", "wrokers: there is no such setting; did you mean workers?"),
        ('tls-cert = "x"', "tls-cert: there is no such setting"),
        ("workers = -1", "workers: -1 is not a whole number of at least 0"),
        ("workers = true", "workers: True is not a whole number of at least 0"),
        ('device = "tpu"', "device: tpu is none of auto, cpu, cuda"),
        ("losses = 3", "losses: 3 is not a list of texts"),
        ('allow_insecure = "perhaps"', "allow_insecure: perhaps is neither true nor false"),
        ("drain_seconds = inf", "drain_seconds: inf is not a number of seconds"),
        ("listen = 50051", "listen: 50051 is not a text"),
        ("workers = ", "Invalid value"),
    ],
)
def test_a_wrong_key_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    """Exit status 2 and one line, with the file and the key."""
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    assert main(["serve", "--check-config", "--config", str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert said in line


def test_wrong_values_name_where_they_come_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them at once, each in a line."""
    monkeypatch.setenv("LOSSWIRE_THREADS", "none")
    assert main(["serve", "--workers", "-1", "--check-config"]) == 2
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "losswire-server: --workers: -1 is not a whole number of at least 0",
        "losswire-server: LOSSWIRE_THREADS: none is not a whole number greater than 0",
    ]


def test_a_variable_that_is_no_setting_is_a_warning(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the nearest one; the SDK's variables are no settings, and no warnings."""
    monkeypatch.setenv("LOSSWIRE_WROKERS", "2")
    monkeypatch.setenv("LOSSWIRE_TARGET", "127.0.0.1:1")
    environment = {**os.environ, "LOSSWIRE_LOSSES": "no_such_module"}
    command = [sys.executable, "-m", "losswire.server", "serve", "--listen", "127.0.0.1:0"]
    assert subprocess.run(command, env=environment, check=False).returncode == 2
    warnings = [line for line in capfd.readouterr().err.splitlines() if '"warning"' in line]
    [warning] = [line for line in warnings if "is no setting" in line]
    assert "the variable LOSSWIRE_WROKERS is no setting; LOSSWIRE_WORKERS is one" in warning


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told, and not taken as empty."""
    assert main(["serve", "--check-config", "--config", str(tmp_path / "nothing")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_settings_that_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    """`--check-config` says so, and serves nothing."""
    assert main(["serve", "--check-config"]) == 0
    assert capsys.readouterr().out == "the settings are valid\n"


def test_a_flag_that_is_wrong_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the usage, which `--help` shows."""
    assert main(["serve", "--device", "tpu"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("losswire-server: argument --device: invalid choice")
