"""A fork server: each input in a process of its own, under limits of memory and of time."""

import os
import re
import resource
import signal
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from workbench.vocabulary.errors import Failure, RequestError, Unsupported

CPU_S = 10
MEMORY = 2 * 2**30
"""Bytes beyond what the server holds itself."""
KNOWN = (RequestError, Failure, Unsupported)

Target = Callable[[bytes, Path], None]


def fault(target: Target, content: bytes) -> str | None:
    """What was wrong with how ``target`` took an input; None where it took or refused it."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        _run(target, content, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}, {CPU_S} s of CPU are allowed"
    return said or None


def _run(target: Target, content: bytes, write: int) -> None:
    """In the child: never returns."""
    said = ""
    try:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
        signal.alarm(6 * CPU_S)
        with tempfile.TemporaryDirectory() as folder:
            target(content, Path(folder))
    except KNOWN as error:
        line = " ".join(str(error).split())
        if not line or len(line) > 2_000 or re.search(r"Traceback|<locals>", line):
            said = f"no clear line: {line[:300]!r}"
    except BaseException:  # noqa: BLE001 - whatever it is, it is the finding
        said = traceback.format_exc()
    os.write(write, said.encode("utf-8", "backslashreplace")[-60_000:])
    os._exit(0)
