"""Nobody else's page reaches the dashboard, and its server calls nobody, however it is started."""

import asyncio
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from workbench.dashboard.guard import LocalOnly, is_own

APP = Path(__file__).resolve().parents[2] / "app.py"
ADDRESS = "localhost:8501"
WATCH = """
import os, sys

def watch(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        where = args[0] if event.startswith("socket.get") else args[1]
        host = where[0] if isinstance(where, tuple) else where
        if host not in ("127.0.0.1", "localhost", None):
            with open(os.environ["CALLS"], "a") as file:
                file.write(f"{event} {host}\\n")

sys.addaudithook(watch)
"""
"""Python itself says which names a process looks up and which addresses it calls."""


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def answer(kind: str = "http", **headers: str | None) -> list[dict[str, Any]]:
    given = {"host": ADDRESS, **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": kind,
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in given.items() if v is not None],
    }
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    asyncio.run(LocalOnly(inner)(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "127.0.0.1:8501"},
        {"host": "localhost"},
        {"host": "[::1]:8501"},
        {"host": "LOCALHOST:9000"},
        {"origin": f"http://{ADDRESS}"},
        {"sec_fetch_site": "same-origin", "sec_fetch_mode": "cors"},
        {"sec_fetch_site": "none", "sec_fetch_mode": "navigate"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
    ],
)
def test_own_pages_pass_closed_against_the_outside(headers: dict[str, str]) -> None:
    start, body = answer(**headers)
    assert (start["status"], body["body"]) == (200, b"in")
    policy = dict(start["headers"])[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "*" not in policy


@pytest.mark.parametrize(
    "headers",
    [
        {"host": None},
        {"host": ""},
        {"host": "evil.example"},
        {"host": "evil.example:8501", "origin": "http://evil.example:8501"},
        {"host": "localhost.evil.example"},
        {"host": "localhost@evil.example"},
        {"host": "evil.example#localhost"},
        {"host": "localhost:8501/x"},
        {"host": "localhost:port"},
        {"host": "localhost:"},
        {"host": "127.0.0.2:8501"},
        {"host": "192.168.1.7:8501", "origin": "http://192.168.1.7:8501"},
        {"host": "\xff"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:9999"},
        {"origin": "http://127.0.0.1:8501"},
        {"origin": "null"},
        {"origin": ""},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
    ],
)
def test_strangers_are_refused(headers: dict[str, str | None]) -> None:
    assert answer(**headers)[0]["status"] == 403
    (closed,) = answer("websocket", **headers)
    assert closed["type"] == "websocket.close"


def test_a_header_that_comes_twice_is_refused() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(b"host", b"localhost"), (b"host", b"evil.example")]}
    asyncio.run(LocalOnly(inner)(scope, inner, send))
    assert sent[0]["status"] == 403


def test_what_names_this_machine() -> None:
    assert [
        host
        for host in ("localhost", "127.0.0.1:1", "[::1]", "0.0.0.0", "::1", "a")
        if is_own(host)
    ] == ["localhost", "127.0.0.1:1", "[::1]"]


class Server(NamedTuple):
    """A running dashboard."""

    port: int
    calls: Path
    """What it looked up or called outside."""

    def status(self, path: str, **headers: str) -> int:
        """Of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        given = {"host": f"localhost:{self.port}", **headers}
        connection.putrequest("GET", path, skip_host=True)
        for name, value in given.items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    def handshake(self, **headers: str) -> int:
        """Of a websocket of the reader's page; 101 opens it."""
        return self.status(
            "/_stcore/stream",
            **{
                "connection": "Upgrade",
                "upgrade": "websocket",
                "sec-websocket-version": "13",
                "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
                **headers,
            },
        )


@pytest.fixture(scope="module", params=["streamlit run", "workbench dashboard"])
def server(
    request: pytest.FixtureRequest, stores: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "sitecustomize.py").write_text(WATCH)
    calls = folder / "calls"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = str(stores / "one_cell.db")
    command = {
        "streamlit run": ["streamlit", "run", str(APP), f"--server.port={port}", "--", store],
        "workbench dashboard": ["workbench.cli", "dashboard", store, "--port", str(port)],
    }[request.param]
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "CALLS": str(calls)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    found = Server(port, calls)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert found.status("/_stcore/health") == 200
                break
            except OSError:
                if time.monotonic() > deadline:
                    process.kill()
                    pytest.fail(f"no dashboard: {process.communicate()[0]!r}")
                time.sleep(0.1)
        yield found
    finally:
        process.terminate()
        process.wait()


def test_the_server_answers_its_own_pages_only_and_calls_nobody(server: Server) -> None:
    own, other = f"localhost:{server.port}", f"http://localhost:{server.port + 1}"
    assert server.handshake(origin=f"http://{own}") == 101
    rebound = {
        "host": f"evil.example:{server.port}",
        "origin": f"http://evil.example:{server.port}",
    }
    for foreign in (rebound, {"origin": "http://evil.example"}, {"origin": other}):
        assert server.handshake(**foreign) == 403
        assert server.status("/", **foreign) == 403
        assert server.status("/_stcore/upload_file/a/b", **foreign) == 403
    assert not server.calls.exists(), server.calls.read_text()
