"""Who holds a cell while two sweeps work on one store, and whether that process still lives."""

import os
import socket
import sqlite3
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_CELL = "run_id = ? AND key = ? AND source = ? AND device = ?"


class Owner(NamedTuple):
    """A process, named so that neither a re-used process id nor a restart passes for it."""

    host: str
    boot: str
    """Identifies this start of the kernel."""
    namespace: str
    """Containers on one machine number their processes apart."""
    pid: int
    started: str
    """Clock ticks from the start of the kernel to that of the process."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> "Owner":
        """The inverse of ``str``; raises ValueError for anything else."""
        host, boot, namespace, pid, started = text.split("\n")
        return cls(host, boot, namespace, int(pid), started)

    def is_dead(self) -> bool:
        """Whether that process has certainly ended; False where this machine cannot tell."""
        here = this_process()
        if self.host != here.host:
            return False
        if self.boot != here.boot:
            return True
        return self.namespace == here.namespace and _started(self.pid) != self.started

    def is_alive(self) -> bool:
        """Whether that process certainly lives; False where this machine cannot tell."""
        here = this_process()
        if (self.host, self.boot, self.namespace) != (here.host, here.boot, here.namespace):
            return False
        return _started(self.pid) == self.started


def _started(pid: int) -> str | None:
    """The start time of a process, None where there is no such process or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in parentheses and may itself hold spaces and ')'.
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


@cache
def _machine() -> tuple[str, str, str]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname(), boot, os.readlink("/proc/self/ns/pid")


def this_process() -> Owner:
    """The owner that claims of the calling process carry. Needs Linux's /proc."""
    pid = os.getpid()
    return Owner(*_machine(), pid, _started(pid) or "")


def take(
    connection: sqlite3.Connection, cell: tuple[Any, ...], lease_s: float, owner: Owner
) -> bool:
    """Claim ``cell`` (run, key, source, device) in a transaction; False where another has it.

    Raises ValueError where the claim in the store makes no sense.
    """
    now = time.time()
    query = f"SELECT owner, claimed_at, expires_at FROM claims WHERE {_CELL}"
    claim = connection.execute(query, cell).fetchone()
    if claim is not None:
        holder, claimed_at, expires_at = Owner.parse(claim[0]), claim[1], claim[2]
        # A clock set back must not make a claim last longer than its lease, and one set forward
        # must not end that of a process which is seen to work on.
        expired = now >= expires_at or now < claimed_at - (expires_at - claimed_at)
        free = holder == owner or holder.is_dead() or (expired and not holder.is_alive())
        if not free:
            return False
    row = (*cell, str(owner), now, now + lease_s)
    connection.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    return True


def drop(connection: sqlite3.Connection, cell: tuple[Any, ...], owner: Owner | None) -> None:
    """End the claim on ``cell`` that ``owner`` holds, or whoever holds it."""
    holder = None if owner is None else str(owner)
    query = f"DELETE FROM claims WHERE {_CELL} AND owner = ifnull(?, owner)"
    connection.execute(query, (*cell, holder))
