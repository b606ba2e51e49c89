"""What keeps pages apart: the console's policy, origins, and names of hosts."""

import re
from pathlib import Path

import httpx
import pytest

from losswire.server.http.static import CONSOLE
from tests.support.http_door import SECONDS, Door, open_door

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_FILES = sorted(
    each.relative_to(CONSOLE).as_posix() for each in CONSOLE.rglob("*") if each.is_file()
)


def test_the_page_is_sent_with_its_policy(door: Door) -> None:
    """The console may load its own files only, and nobody may frame it."""
    response = door.client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.content == (CONSOLE / "index.html").read_bytes()
    policy = re.sub(
        r" 'sha256-[A-Za-z0-9+/=]{44}'", "", response.headers["content-security-policy"]
    )
    assert policy == _POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", _FILES)
def test_every_file_of_the_console_is_sent(door: Door, name: str) -> None:
    """Each file comes with a type that a browser believes, and an ETag that spares the next."""
    response = door.client.get(f"/console/{name}")
    assert response.status_code == 200
    assert response.content == (CONSOLE / name).read_bytes()
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    again = door.client.get(f"/console/{name}", headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == response.headers["etag"]


@pytest.mark.parametrize(
    "path",
    [
        "/console/",
        "/console/../cli.py",
        "/console/%2e%2e/cli.py",
        "/console/..%2fcli.py",
        "/console//etc/passwd",
        "/console/%2fetc%2fpasswd",
        "/console/lib",
        "/console/.hidden.js",
        "/console/nothing.js",
        "/console/app.js%00.css",
    ],
)
def test_nothing_else_is_sent(door: Door, path: str) -> None:
    """No path leads out of the console's folder."""
    response = door.client.send(
        httpx.Request("GET", f"http://{door.address}", extensions={"target": path.encode()})
    )
    assert response.status_code == 404
    assert response.json()["reason"] == "UNKNOWN_PATH"


_ORIGIN = "https://pages.example"
_PREFLIGHT = {
    "origin": _ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type",
}


def test_no_other_page_may_call_by_default(door: Door) -> None:
    """Without --http-cors no header allows another origin anything."""
    response = door.client.get("/v1/server", headers={"origin": _ORIGIN})
    assert not [each for each in response.headers if each.startswith("access-control")]
    assert door.client.options("/v1/evaluate", headers=_PREFLIGHT).status_code == 405


def test_origins_are_allowed_one_by_one(tmp_path: Path) -> None:
    """With --http-cors the pages of that origin may call, read problems and know their id."""
    with open_door(tmp_path / "log", "--http-cors", _ORIGIN) as door:
        preflight = door.client.options("/v1/evaluate", headers=_PREFLIGHT)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == _ORIGIN
        assert "POST" in preflight.headers["access-control-allow-methods"]
        refused = door.client.get("/v1/losses/none", headers={"origin": _ORIGIN})
        assert refused.status_code == 404
        assert refused.headers["access-control-allow-origin"] == _ORIGIN
        assert "x-request-id" in refused.headers["access-control-expose-headers"].lower()
        other = {**_PREFLIGHT, "origin": "https://evil.example"}
        assert door.client.options("/v1/evaluate", headers=other).status_code == 400
        # A proxy in front may pass on the host's name, which then is the origin's.
        assert door.client.get("/healthz", headers={"host": "pages.example"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("x.localhost", 200),
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("localhost.evil.example", 403),
        ("[::1", 403),
    ],
)
def test_other_names_of_this_machine_are_refused(door: Door, host: str, status: int) -> None:
    """A page whose own name leads here gets nothing: its requests name its host."""
    response = httpx.get(
        f"http://{door.address}/v1/server", headers={"host": host}, timeout=SECONDS
    )
    assert response.status_code == status
    if status == 403:
        assert response.json()["reason"] == "WRONG_HOST"
