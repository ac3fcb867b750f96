"""Many readers of one dashboard at once: ``python -m tests.benchmarks.sessions STORE.db``.

A reader is a websocket that speaks as a page in a browser does: it asks for one page after another
and reads until each is drawn. Whatever a page raises comes back in the answer.
"""

import asyncio
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks.dashboard import PAGES

APP = Path(__file__).resolve().parents[2] / "app.py"
READERS, SECONDS, PATIENCE_S = 50, 60.0, 300.0
PREDICTS = "planner"
"""A page whose time is that of a process of its own, which predicts."""


class Visits(NamedTuple):
    """What several readers met."""

    drawn: int
    """Pages that were drawn."""
    faults: tuple[str, ...]
    """What went wrong, each with its page."""
    slowest_s: float


@contextmanager
def serve(store: Path) -> Iterator[int]:
    """The port of a dashboard over ``store``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["streamlit", "run", str(APP), f"--server.port={port}", "--", str(store)]
    server = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health")
        yield port
    finally:
        server.terminate()
        server.wait()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=2)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.25)
        else:
            return


async def visit(port: int, readers: int, seconds: float, pages: tuple[str, ...]) -> Visits:
    """``readers`` at once, each for that long and at least one page; they start at different
    ones.
    """
    several = await asyncio.gather(*(_read(port, seconds, pages, n) for n in range(readers)))
    return Visits(
        sum(each.drawn for each in several),
        tuple(fault for each in several for fault in each.faults),
        max(each.slowest_s for each in several),
    )


async def _read(port: int, seconds: float, pages: tuple[str, ...], first: int) -> Visits:
    drawn, faults, slowest = 0, [], 0.0
    end = time.monotonic() + seconds
    address = f"ws://localhost:{port}/_stcore/stream"
    origin = f"http://localhost:{port}"
    async with connect(
        address, origin=origin, subprotocols=["streamlit"], max_size=None, open_timeout=PATIENCE_S
    ) as reader:
        while drawn == 0 or time.monotonic() < end:
            name = pages[(first + drawn) % len(pages)]
            start = time.monotonic()
            faults += [f"{name}: {fault}" for fault in await _draw(reader, name)]
            slowest = max(slowest, time.monotonic() - start)
            drawn += 1
    return Visits(drawn, tuple(faults), slowest)


async def _draw(reader: ClientConnection, name: str) -> list[str]:
    """Ask for a page and read until it is drawn; what it raised."""
    asked = BackMsg()
    asked.rerun_script.page_name = "" if name == "overview" else name
    await reader.send(asked.SerializeToString())
    faults, began, titles = [], False, set()
    while True:
        message = ForwardMsg()
        message.ParseFromString(await asyncio.wait_for(reader.recv(decode=False), PATIENCE_S))
        kind = message.WhichOneof("type")
        began |= kind == "new_session"
        element = message.delta.new_element
        if element.HasField("heading"):
            titles.add(element.heading.body)
        if element.HasField("exception"):
            faults.append(f"{element.exception.type}: {element.exception.message}")
        if kind == "script_finished" and began:
            if not titles:
                faults.append("no title")
            ended = ForwardMsg.ScriptFinishedStatus.Name(message.script_finished)
            return faults if ended.startswith("FINISHED_SUCC") else [*faults, ended]


def main(store: Path) -> None:
    """Print what ``READERS`` meet in ``SECONDS``; exit code 1 where anything failed."""
    pages = tuple(page for page in PAGES if page != PREDICTS)
    with serve(store) as port:
        visits = asyncio.run(visit(port, READERS, SECONDS, pages))
    print(
        f"{READERS} readers, {SECONDS:g} s: {visits.drawn:,} pages drawn, {len(visits.faults)}"
        f" failed, the slowest after {visits.slowest_s:.1f} s"
    )
    print("\n".join(sorted(set(visits.faults))))
    sys.exit(1 if visits.faults else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
