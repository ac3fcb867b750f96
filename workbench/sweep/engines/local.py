"""The tasks of a sweep in worker processes of this machine, each on one task at a time."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from workbench.probe.workers.client import Client
from workbench.sweep.pace import Deadline
from workbench.sweep.plan import Task
from workbench.vocabulary.record import Record

RETRY_S = 1.0
"""Between two looks at cells that another sweep is working on."""


def run_local(
    tasks: Iterable[Task],
    clients: Sequence[Client],
    claim: Callable[[Task], bool],
    settled: Callable[[Task], bool],
    deadline: Deadline,
) -> Generator[tuple[Task, Record], None, None]:
    """Yield each task with its record. Two sweeps on one store share the work between them.

    ``claim`` says whether the task is ours to run now; one that another sweep holds is looked at
    again later, until it is ``settled`` there or its holder is gone. Both are called in the
    caller's thread. Closing the iterator ends the cells in flight; the ``deadline`` lets them end,
    and leaves out what would end after it.
    """
    waiting, elsewhere = deque(tasks), list[Task]()
    idle = list(clients)
    running: dict[Future[Record], tuple[Task, Client]] = {}
    with ThreadPoolExecutor(len(clients)) as pool:
        try:
            while waiting or elsewhere or running:
                if deadline.is_over():
                    deadline.left += [*waiting, *elsewhere]
                    waiting, elsewhere = deque(), []
                while idle and waiting:
                    task = waiting.popleft()
                    if deadline.leaves_out(task):
                        continue
                    if claim(task):
                        client = idle.pop(0)  # the first is warm: it made the forecast
                        running[pool.submit(client.run, task.point)] = task, client
                    elif not settled(task):
                        elsewhere.append(task)
                if running:
                    finished, _ = wait(
                        running, RETRY_S if elsewhere and idle else None, FIRST_COMPLETED
                    )
                else:
                    finished = set()
                    time.sleep(RETRY_S if elsewhere else 0)
                if not waiting:
                    waiting, elsewhere = deque(elsewhere), []
                for future in finished:
                    task, client = running.pop(future)
                    idle.append(client)
                    yield task, future.result()
        finally:
            for _, client in running.values():
                client.interrupt()
