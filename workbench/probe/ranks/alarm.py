"""One rank's failure told to all: the others wait in a collective and cannot hear of it there."""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import NoReturn, Self

import torch.distributed as dist

from workbench.probe.machine.launch import Launch
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Status

POLL_S = 0.5
CAUSE_S = 1.0
TELL_S = 30.0
RUNG, TOLD = "workbench/rung", "workbench/told"


class Alarm:
    """Listens on the store that the ranks met at; rank 0 then calls ``tell`` and all leave.

    It rings by itself once ``timeout_s`` are over.
    """

    def __init__(
        self, launch: Launch, tell: Callable[[Status, str], None], timeout_s: float
    ) -> None:
        self.launch, self.tell, self.timeout_s = launch, tell, timeout_s
        self._over = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False
        )
        self._listener.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        # What was wrong with the request, every rank finds by itself.
        if error is not None and not isinstance(error, RequestError):
            # A rank that was killed breaks the others' connections: the launcher, which looks ten
            # times a second, shall see that first.
            time.sleep(CAUSE_S)
            self.ring(Status.ERROR, f"{type(error).__name__}: {error}")
        self._over.set()
        self._listener.join()

    def ring(self, status: Status, reason: str) -> NoReturn:
        """Tell every rank why this one cannot go on; none of them returns from where it is."""
        self._over.set()
        self._listener.join()
        self._rung(status, f"rank {self.launch.rank}: {' '.join(reason.split())}")

    def _rung(self, status: Status, reason: str) -> NoReturn:
        self._store.compare_set(RUNG, "", f"{status}|{reason}")
        self._leave()

    def _listen(self) -> None:
        deadline = time.monotonic() + self.timeout_s
        while not self._over.wait(POLL_S):
            if self._store.check([RUNG]):
                self._leave()
            if time.monotonic() > deadline:
                self._rung(Status.TIMEOUT, f"no answer within {self.timeout_s:g} s")

    def _leave(self) -> NoReturn:
        status, _, reason = self._store.get(RUNG).decode().partition("|")
        if self.launch.rank == 0:
            self.tell(Status(status), reason)
            sys.stdout.flush()
            self._store.set(TOLD, "yes")
        else:
            # Rank 0 first: the launcher ends everybody once one has left with an error.
            # If that is stuck or gone, nobody else can speak.
            with suppress(dist.DistError):
                self._store.wait([TOLD], timedelta(seconds=TELL_S))
        os._exit(0 if Status(status).done else 1)
