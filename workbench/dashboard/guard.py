"""Who may talk to the dashboard: this machine by its own names, and the dashboard's own pages.

A stranger's page in the reader's browser can reach a server on this machine: directly, or under a
name of its own that it lets point at 127.0.0.1. The first states another origin, the second
another host; both get 403 before Streamlit sees the request, which would look up and call an
address outside to judge a foreign origin. No Streamlit here.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HOSTS = ("localhost", "127.0.0.1", "::1")
"""This machine. A tunnel to it, such as ssh -L, has one of these names, too."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "media-src 'self' data: blob:; worker-src 'self' blob:; connect-src 'self' data: blob: {own}; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""A page loads and calls nothing but its own server, and no other page frames it."""


class LocalOnly:
    """ASGI middleware: requests of this machine's own pages pass, all others get 403."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        host = refusal = None
        try:
            host = _only(scope, b"host")
            refusal = _refusal(scope, host)
        except ValueError as error:
            refusal = str(error)
        if refusal is None:
            await self._app(scope, receive, _closed(send, f"ws://{host}"))
        else:
            await _refuse(scope, send, refusal)


def _refusal(scope: Scope, host: str | None) -> str | None:
    """Why a request is refused; None where it is not. Raises ValueError for a malformed header."""
    if host is None or not is_own(host):
        return "the dashboard answers to localhost and 127.0.0.1 only"
    origin = _only(scope, b"origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return "another page may not use the dashboard"
    # A picture or a script that a page of another site embeds states no origin.
    embeds = _only(scope, b"sec-fetch-site") not in (None, "same-origin", "none")
    if embeds and _only(scope, b"sec-fetch-mode") != "navigate":
        return "another page may not use the dashboard"
    return None


def is_own(host: str) -> bool:
    """Whether a Host header names this machine, with or without a port."""
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        return False
    bare = parts.hostname or ""
    name = f"[{bare}]" if ":" in bare else bare
    return bare in HOSTS and host.lower() in (name, f"{name}:{port}")


def _only(scope: Scope, name: bytes) -> str | None:
    """A header's value, None where there is none; ValueError where there are two."""
    values = [value for key, value in scope["headers"] if key == name]
    if len(values) > 1:
        raise ValueError(f"two headers {name.decode()}")
    return values[0].decode("latin-1") if values else None


def _closed(send: Send, own: str) -> Send:
    """``send`` that closes a page against the outside."""
    policy = POLICY.format(own=own).encode("latin-1")

    async def sends(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [
                (b"content-security-policy", policy),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"no-referrer"),
            ]
            names = {name for name, _ in headers}
            others = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": [*others, *headers]}
        await send(message)

    return sends


async def _refuse(scope: Scope, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        # Closed before it is accepted: the server answers the handshake with 403.
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    body = f"{why}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
