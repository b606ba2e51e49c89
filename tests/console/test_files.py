"""The console's files are few, small, known, and load nothing from elsewhere."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from http.client import HTTPConnection
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.browser import Serving

ROOT: Final = Path(str(files("losswire.server") / "console"))

MOST_BYTES: Final = 250 * 1024

NOT_LOADED: Final = frozenset({"vendor/LICENSES.txt", "vendor/versions.json"})
"""What no page loads."""

LOADED_ON_DEMAND: Final = "vendor/hyparquet.js"
"""Loaded for a Parquet file only, and not a part of the budget."""

LICENCES: Final = frozenset({"MIT", "Apache-2.0", "BSD-3-Clause", "ISC"})

PATHS: Final = sorted(
    each.relative_to(ROOT).as_posix()
    for each in ROOT.rglob("*")
    if each.is_file() and not each.name.startswith(".")
)
TEXTS: Final[Mapping[str, str]] = {each: (ROOT / each).read_text("utf-8") for each in PATHS}
OWN: Final = [each for each in PATHS if not each.startswith("vendor/")]
VENDORED: Final[list[dict[str, Any]]] = json.loads(TEXTS["vendor/versions.json"])


def test_they_are_small(console: Serving) -> None:
    """All screens together, as a browser gets them, without what Parquet files need."""
    sent = {}
    for path in PATHS:
        if path not in NOT_LOADED and path != LOADED_ON_DEMAND:
            _, headers, body = _get(console, f"/console/{path}", **{"Accept-Encoding": "gzip, br"})
            assert headers["content-encoding"] == "gzip"
            assert gzip.decompress(body).decode() == TEXTS[path]
            sent[path] = len(body)
    assert len(sent) > 10, "the files were not found"
    assert sum(sent.values()) <= MOST_BYTES, sent


def test_every_vendored_file_is_described() -> None:
    """With the name, version, licence and source of what it was made of."""
    there = {Path(each).name for each in PATHS if each.startswith("vendor/")}
    described = [each["file"] for each in VENDORED]
    assert sorted(described) == sorted(there - {Path(each).name for each in NOT_LOADED})
    for each in VENDORED:
        assert re.fullmatch(r"\d+\.\d+\.\d+", each["version"]), each
        assert each["source"] == f"npm: {each['name']}@{each['version']}", each


@pytest.mark.parametrize("vendored", VENDORED, ids=lambda each: each["file"])
def test_vendored_files_are_what_they_were(vendored: Mapping[str, Any]) -> None:
    """The SHA-256 is the one that was written down when the file was made."""
    found = hashlib.sha256((ROOT / "vendor" / vendored["file"]).read_bytes()).hexdigest()
    assert found == vendored["sha256"]


def test_licences_are_free_and_enclosed() -> None:
    """Every package and what it contains, with the whole text."""
    texts = TEXTS["vendor/LICENSES.txt"]
    lower = texts.lower()
    for each in VENDORED:
        assert f"{each['name']} {each['version']}" in lower, each["name"]
        for part in (each, *each.get("contains", ())):
            assert part["licence"] in LICENCES, part
            assert part["name"] in lower
    assert "Permission is hereby granted, free of charge" in texts
    assert "Apache License" in texts


_URL: Final = re.compile(r"""(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s"'`)>]*""")
_NAMES_ONLY: Final = ("http://www.w3.org/", "//www.w3.org/")
"""Addresses that are names of XML vocabularies: nothing asks for them."""


@pytest.mark.parametrize("path", [each for each in PATHS if each not in NOT_LOADED])
def test_nothing_is_loaded_from_elsewhere(path: str) -> None:
    """No file has an address of another host, but for names of vocabularies and in comments."""
    code = re.sub(r"/\*.*?\*/", "", TEXTS[path], flags=re.DOTALL)
    # Comments up to the end of a line; a `//` within an address follows a colon or a quote.
    code = re.sub(r"(?m)(^|[\s;{}])//[^\n]*", r"\1", code)
    found = [each for each in _URL.findall(code) if not each.startswith(_NAMES_ONLY)]
    assert found == []


@pytest.mark.parametrize("path", OWN)
def test_nothing_is_evaluated(path: str) -> None:
    """No code from text, no markup from text, no style in an attribute: the policy forbids them."""
    for pattern in (
        r"\beval\(",
        r"new Function\(",
        r"\.(inner|outer)HTML\s*=",
        r"insertAdjacentHTML",
        r"document\.write",
        r"javascript:",
        r"""\sstyle=["'][^$]""",
    ):
        assert not re.search(pattern, TEXTS[path]), pattern


def test_the_package_has_them() -> None:
    """No rule of git, which the build follows, leaves one out."""
    git = shutil.which("git")
    assert git is not None
    ran = subprocess.run(
        [git, "check-ignore", *PATHS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.returncode) == ("", 1)


def _get(server: Serving, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection(server.http, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", PATHS)
def test_every_file_is_served(console: Serving, path: str) -> None:
    """As it is, with its type, for the console alone; a browser that has it is told so."""
    status, headers, body = _get(console, f"/console/{path}")
    assert (status, body) == (200, TEXTS[path].encode())
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"
    assert headers["referrer-policy"] == "no-referrer"
    if path.endswith(".js"):
        assert headers["content-type"].startswith("text/javascript")
    status, _, body = _get(console, f"/console/{path}", **{"If-None-Match": headers["etag"]})
    assert (status, body) == (304, b"")


def test_the_policy_is_strict(console: Serving) -> None:
    """Own scripts and styles only, no frames around it; inline scripts by their hash."""
    status, headers, body = _get(console, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    rules = dict(each.split(" ", 1) for each in headers["content-security-policy"].split("; "))
    inline = re.findall(rb"<script[^>]*>(.+?)</script>", body, re.DOTALL)
    hashes = [f"'sha256-{b64encode(hashlib.sha256(each).digest()).decode()}'" for each in inline]
    assert rules == {
        "default-src": "'none'",
        "script-src": " ".join(["'self'", *hashes]),
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "worker-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize(
    "path",
    [
        "/console/../app.py",
        "/console/%2e%2e/app.py",
        "/console/..%2fapp.py",
        "/console/",
        "/console/lib",
        "/console/lib/",
        "/console//etc/passwd",
        "/console/missing.js",
        "/console/.hidden",
    ],
)
def test_nothing_else_is_served(console: Serving, path: str) -> None:
    """No folder, and nothing outside of it."""
    status, headers, _ = _get(console, path)
    assert (status, headers["content-type"]) == (404, "application/problem+json")
