"""The guard of a worker: a parent that ends it, and all it started, once its coordinator is gone.

A process that the kernel kills cannot clean up after itself, and a Python thread cannot run while
a long operation holds the interpreter. So the worker forks first thing: the child works, and the
parent waits for the other end of its standard input to close.
"""

import ctypes
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import NoReturn

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def fork_under_guard() -> None:
    """Fork; return in the child, which dies with its parent. The parent never returns.

    Call it before any thread is started. The child's descendants become the guard's when they are
    orphaned, so that it finds them in whatever session they are.
    """
    # Slurm tells every process of a job that its time is nearly over; the coordinator acts on it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    guard = os.getpid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    worker = os.fork()
    if worker:
        _guard(worker)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)


def _guard(worker: int) -> NoReturn:
    """Wait for the worker or the coordinator to end, end the rest, leave as the worker did."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def on_hangup() -> None:
        poll = select.poll()
        poll.register(0, 0)  # no event but the hang-up: the worker reads the same pipe
        poll.poll()
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.kill(worker, signal.SIGKILL)

    Thread(target=on_hangup, daemon=True).start()
    _, status = os.waitpid(worker, 0)
    _end_orphans()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):  # those two cannot be set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


GRACE_S = 2.0
"""In which the guard ends its worker once the coordinator is gone, unless it is stopped itself."""


def watch_over_guard(requests: int) -> None:
    """Let a thread of the worker end all of it, should the guard not: a stopped one cannot.

    ``requests`` is the file descriptor at whose other end the coordinator is. Call it in the
    worker, once it has forked.
    """
    guard = os.getppid()

    def on_hangup() -> None:
        poll = select.poll()
        poll.register(requests, 0)
        poll.poll()
        time.sleep(GRACE_S)
        _end_descendants(os.getpid())
        with suppress(ProcessLookupError):
            os.kill(guard, signal.SIGKILL)  # works on a stopped process too
        os._exit(1)

    Thread(target=on_hangup, name="guard's guard", daemon=True).start()


def _end_descendants(parent: int) -> None:
    for child in _children(parent):
        _end_descendants(child)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _end_orphans() -> None:
    while True:
        for child in _children(os.getpid()):
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children(parent: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(parent).children()]
    except psutil.NoSuchProcess:  # it ended while we looked
        return []


def offer_to_the_kernel() -> None:
    """Make this process the kernel's first choice should memory run out all the same."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError as error:
        print(f"oom_score_adj cannot be raised: {error}", file=sys.stderr)
