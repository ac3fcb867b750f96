"""A child process that is asked: answers, silence, death, nonsense, and what it leaves behind."""

import os
import sys
import time
from collections.abc import Iterator
from threading import Timer

import pytest

from workbench.child import Child, Ended, Interrupted

ECHO = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "die":
        sys.exit("no luck\\n\\n")
    if asked["do"] == "sleep":
        import time; time.sleep(60)
    print("[1]" if asked["do"] == "list" else json.dumps({"asked": asked}), flush=True)
"""


def started(code: str, stop: int | None = None) -> Child:
    child = Child((sys.executable, "-S", "-c", code), name="echo", stop=stop)
    child.ready = child.start(30)  # type: ignore[attr-defined]
    return child


@pytest.fixture
def echo() -> Iterator[Child]:
    child = started(ECHO)
    yield child
    child.close()


def test_it_says_that_it_is_ready_and_answers(echo: Child) -> None:
    assert echo.ready == {"ready": True}  # type: ignore[attr-defined]
    long = {"do": "echo", "text": "é" * 200_000}
    assert echo.ask(long, 30) == {"asked": long}
    assert echo.is_alive


def test_a_silent_one_is_waited_for_so_long(echo: Child) -> None:
    with pytest.raises(TimeoutError, match=r"^no answer within 0\.2 s$"):
        echo.ask({"do": "sleep"}, 0.2)


def test_how_it_ended_is_known(echo: Child) -> None:
    with pytest.raises(Ended, match=r"^the echo ended with exit status 1$") as raised:
        echo.ask({"do": "die"}, 30)
    assert raised.value.code == 1
    assert echo.last_line == "no luck"
    assert not echo.is_alive


def test_an_answer_is_an_object(echo: Child) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        echo.ask({"do": "list"}, 30)


def test_whoever_waits_learns_that_it_was_killed(echo: Child) -> None:
    Timer(0.2, echo.kill).start()
    with pytest.raises(Ended) as raised:
        echo.ask({"do": "sleep"}, 30)
    assert raised.value.code == -9


def test_whoever_waits_can_be_interrupted() -> None:
    stop, stopping = os.pipe()
    child = started(ECHO, stop)
    try:
        os.write(stopping, b"!")
        with pytest.raises(Interrupted):
            child.ask({"do": "sleep"}, 30)
    finally:
        child.close()
        os.close(stop)
        os.close(stopping)


def test_one_that_is_never_ready_is_ended() -> None:
    child = Child((sys.executable, "-S", "-c", "import time; time.sleep(60)"))
    with pytest.raises(TimeoutError):
        child.start(0.2)
    assert not child.is_alive


def test_what_it_started_ends_with_it() -> None:
    code = """
import json, subprocess, sys
held = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
print(json.dumps({"pid": held.pid}), flush=True)
sys.stdin.read()
held.wait()
"""
    child = started(code)
    pid = child.ready["pid"]  # type: ignore[attr-defined]
    child.close()
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline, "what the child started still runs"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether the process works: nobody may have waited for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
