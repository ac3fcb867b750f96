"""One task after another in a worker process of this machine."""

import time
from collections.abc import Callable, Iterable, Iterator

from workbench.probe.client import Client
from workbench.record import Record
from workbench.sweep.plan import Task

RETRY_S = 1.0
"""Between two looks at cells that another sweep is working on."""


def run_local(
    tasks: Iterable[Task],
    client: Client,
    claim: Callable[[Task], bool],
    settled: Callable[[Task], bool],
) -> Iterator[tuple[Task, Record]]:
    """Yield each task with its record. Two sweeps on one store share the work between them.

    ``claim`` says whether the task is ours to run now; one that another sweep holds is looked at
    again later, until it is ``settled`` there or its holder is gone.
    """
    waiting = list(tasks)
    while waiting:
        held = []
        for task in waiting:
            if claim(task):
                yield task, client.run(task.point)
            elif not settled(task):
                held.append(task)
        if len(held) == len(waiting):
            time.sleep(RETRY_S)
        waiting = held
