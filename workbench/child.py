"""A child process that is asked questions: how it is started, asked, waited for and ended.

Both sides speak JSON, one document a line. The first line that the child writes says that it is
ready. Workers of a sweep and the planner's predictors are such children.
"""

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from workbench.version import PACKAGE

Document = dict[str, Any]
END_TIMEOUT_S = 10.0
"""Until a child that has closed its output, or lost its input, is gone."""
TAIL_BYTES = 8192
"""What is kept of a child's standard error."""


class Ended(Exception):
    """The child ended before it answered; ``code`` as subprocess gives it."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"the {name} ended with exit status {code}")
        self.code = code


class Interrupted(Exception):
    """Somebody wrote to ``stop``: nobody waits for the answer any more."""


class Child:
    """One child process, in a process group of its own, asked by one thread at a time.

    Whoever waits for it gets ``Ended`` if it dies, TimeoutError if it is silent, ValueError if it
    answers with something else than a JSON object, and ``Interrupted`` once the file descriptor
    ``stop`` can be read. ``name`` is what messages call it. ``grace_s``: how long it has to end by
    itself when its input is closed, before its group is killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str] | None = None,
        name: str = "process",
        grace_s: float = 0.0,
        stop: int | None = None,
    ) -> None:
        self._name, self._grace_s, self._stop = name, grace_s, stop
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_environment_variables(), **(variables or {})},
            start_new_session=True,
        )
        streams = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._to, self._from, self._noise = (_open(stream).fileno() for stream in streams)
        os.set_blocking(self._to, False)
        self._received, self._stderr = b"", b""

    def start(self, timeout_s: float) -> Document:
        """Wait until it is ready and return what it says then; one that is not ready is ended."""
        try:
            return self._exchange(b"", timeout_s)
        except BaseException:
            self.close()
            raise

    def ask(self, question: Document, timeout_s: float) -> Document:
        """Send one question and wait for its answer."""
        return self._exchange(json.dumps(question).encode() + b"\n", timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    @property
    def stderr(self) -> list[str]:
        """The last lines that it, or a library in it, printed on standard error."""
        return self._stderr.decode(errors="replace").splitlines()

    @property
    def last_line(self) -> str | None:
        """The last of them that is not blank."""
        return next((line.strip() for line in reversed(self.stderr) if line.strip()), None)

    def kill(self) -> None:
        """End its process group at once, from any thread; whoever waits for it gets ``Ended``."""
        if self.is_alive:
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it and everything that it started. May be called again."""
        _open(self._process.stdin).close()
        _open(self._process.stdout).close()
        if self._process.returncode is None:
            self._end(self._grace_s)
        _open(self._process.stderr).close()

    def _exchange(self, request: bytes, timeout_s: float) -> Document:
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._from, selectors.EVENT_READ)
            selector.register(self._noise, selectors.EVENT_READ)
            if self._stop is not None:
                selector.register(self._stop, selectors.EVENT_READ)
            if request:
                selector.register(self._to, selectors.EVENT_WRITE)
            while b"\n" not in self._received:
                remaining = deadline - time.monotonic()
                events = selector.select(max(0.0, remaining))
                if not events and remaining <= 0:
                    raise TimeoutError(f"no answer within {timeout_s:g} s")
                for key, _ in events:
                    if key.fd == self._stop:
                        raise Interrupted
                    if key.fd == self._to:
                        request = self._send(request)
                        if not request:
                            selector.unregister(self._to)
                    elif not self._receive(key.fd):
                        selector.unregister(key.fd)
                        if key.fd == self._from:
                            raise Ended(self._name, self._end(END_TIMEOUT_S))
        line, _, self._received = self._received.partition(b"\n")
        document = json.loads(line)
        if not isinstance(document, dict):
            raise ValueError(f"not a JSON object: {line[:80]!r}")
        return document

    def _send(self, request: bytes) -> bytes:
        try:
            return request[os.write(self._to, request) :]
        except BrokenPipeError:  # it is dead: reading will say how
            return b""

    def _receive(self, fd: int) -> bool:
        chunk = os.read(fd, 65536)
        if fd == self._from:
            self._received += chunk
        else:
            self._stderr = (self._stderr + chunk)[-TAIL_BYTES:]
        return bool(chunk)

    def _end(self, grace_s: float) -> int:
        """Wait for its end, force it after ``grace_s``, and collect its last words."""
        try:
            code = self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            code = self._process.wait()
        os.set_blocking(self._noise, False)
        try:
            while self._receive(self._noise):
                pass
        except BlockingIOError:  # a stranger still holds the pipe
            pass
        return code


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _environment_variables() -> dict[str, str]:
    """Ours, and the folder of this package where it is run without being installed."""
    root = PACKAGE.resolve().parent
    if root.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    paths = [path for path in (os.environ.get("PYTHONPATH"), str(root)) if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
