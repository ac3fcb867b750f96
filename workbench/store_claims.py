"""Who holds a cell while two sweeps work on one store, and whether that process still lives."""

import os
import socket
from functools import cache
from pathlib import Path
from typing import NamedTuple


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
