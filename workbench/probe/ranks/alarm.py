"""One rank's failure told to all: the others wait in a collective and cannot hear of it there."""

import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, Self

import torch.distributed as dist

from workbench.errors import RequestError
from workbench.probe.machine.launch import Launch
from workbench.record import Status

POLL_S = 0.5
RUNG, TOLD = "workbench/rung", "workbench/told"


class Alarm:
    """Listens on the store that the ranks met at; rank 0 then calls ``tell`` and all leave."""

    def __init__(self, launch: Launch, tell: Callable[[Status, str], None]) -> None:
        self.launch, self.tell = launch, tell
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
            self.ring(Status.ERROR, f"{type(error).__name__}: {error}")
        self._over.set()
        self._listener.join()

    def ring(self, status: Status, reason: str) -> NoReturn:
        """Tell every rank why this one cannot go on; none of them returns from where it is."""
        self._over.set()
        self._listener.join()
        words = f"{status}|rank {self.launch.rank}: {' '.join(reason.split())}"
        self._store.compare_set(RUNG, "", words)
        self._leave()

    def _listen(self) -> None:
        while not self._over.wait(POLL_S):
            if self._store.check([RUNG]):
                self._leave()

    def _leave(self) -> NoReturn:
        status, _, reason = self._store.get(RUNG).decode().partition("|")
        if self.launch.rank == 0:
            self.tell(Status(status), reason)
            sys.stdout.flush()
            self._store.set(TOLD, "yes")
        else:
            # Rank 0 first: the launcher ends everybody once one has left with an error.
            self._store.wait([TOLD])
        os._exit(0 if Status(status).done else 1)
