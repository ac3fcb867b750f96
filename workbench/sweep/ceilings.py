"""What the device of a run's measured tasks reaches, measured once and kept with its records."""

from collections.abc import Callable, Sequence

from workbench.probe.workers.client import Client, WorkerError
from workbench.store import Store
from workbench.sweep.plan import Task
from workbench.vocabulary.record import Ceiling


def ceilings_for(
    todo: Sequence[Task], client: Client, store: Store, run: str, say: Callable[[str], None]
) -> dict[str, Ceiling]:
    """Ceilings by data type: from the store, else measured.

    The workers of a run sit on devices of one kind. What cannot be measured is told to ``say`` and
    is no reason not to run the cells.
    """
    measured = [task for task in todo if task.point.source == "measured"]
    if not measured:
        return {}
    (facts,) = (info.environment for info in store.runs() if info.id == run)
    ceilings = store.ceilings(facts.fingerprint, measured[0].device_name)
    for task in measured:
        dtype = task.point.cell.dtype
        if dtype in ceilings:
            continue
        try:
            ceilings[dtype] = client.ceiling(dtype, task.device)
        except WorkerError as error:
            say(f"no ceilings are measured: {error}")
            break
    return ceilings
