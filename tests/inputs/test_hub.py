"""The hub's client is quiet while it is asked, and what does not answer is not waited for."""

import logging
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from workbench.inputs import hub
from workbench.vocabulary.errors import RequestError

COMMIT = "0" * 40


def test_retries_are_not_told() -> None:
    client = logging.getLogger("huggingface_hub.utils._http")
    with hub.quietly():
        assert not client.isEnabledFor(logging.WARNING)
        assert client.isEnabledFor(logging.ERROR)
    assert client.isEnabledFor(logging.WARNING)


class Hub(BaseHTTPRequestHandler):
    """A hub whose models have a config.json and nothing else."""

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(b"{}")

    def answer(self, content: bytes) -> None:
        there = self.path.endswith("/config.json")
        self.send_response(200 if there else 404)
        if not there:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"abc"')
        self.send_header("Content-Length", "2" if there else "0")
        self.end_headers()
        self.wfile.write(content if there else b"")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[socket.socket]:
    """A socket of this machine at which the hub is said to be, and an empty cache."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(hub, "_silent", None)
        yield listening


def test_a_hub_that_answers_is_used(at: socket.socket) -> None:
    port = at.getsockname()[1]
    at.close()
    with ThreadingHTTPServer(("127.0.0.1", port), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = hub.fetch("a/model", "config.json")
        assert found is not None
        assert found.read_bytes() == b"{}"
        assert hub.fetch("a/model", "processor_config.json") is None
        server.shutdown()
    # Out of reach again: what was fetched is there, what was not counts as not there.
    assert hub.fetch("a/model", "config.json") == found
    assert hub.fetch("a/model", "preprocessor_config.json") is None


def test_a_hub_that_says_nothing_is_asked_once(
    at: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "ANSWER_S", 0.3)
    start = time.monotonic()
    for model in ("a/model", "another/model", "a/third"):
        with pytest.raises(RequestError, match="cannot be fetched: the hub does not answer"):
            hub.fetch(model, "config.json")
    assert time.monotonic() - start < 2


def test_a_hub_that_is_not_there_is_refused_at_once(at: socket.socket) -> None:
    at.close()
    start = time.monotonic()
    with pytest.raises(RequestError, match=r"the hub does not answer: .*refused"):
        hub.fetch("a/model", "config.json")
    assert time.monotonic() - start < 2
