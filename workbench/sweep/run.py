"""A sweep, run: skip what the store holds, run the rest, keep every record at once."""

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.probe.client import Client, WorkerError
from workbench.probe.environment import environment
from workbench.record import Status
from workbench.spec import Sweep
from workbench.store import Store
from workbench.sweep.engines.local import run_local
from workbench.sweep.plan import Identity, Task, kinds, plan
from workbench.sweep.progress import Progress

LEASE_SLACK_S = 600.0
"""What a claim lasts beyond twice the time-out of its cell: workers have to start, too."""


@dataclass
class Summary:
    """How a sweep ended, or how far it had come when it was interrupted."""

    sweep: str
    store: Path
    num_cells: int
    run: str | None = None
    num_held: int = 0
    """Cells that the store held when the sweep began."""
    num_ran: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """Cells of this sweep in the store, by status."""
    interrupted: bool = False

    @property
    def num_failed(self) -> int:
        """Cells that did not end, so that the next sweep tries them again."""
        return sum(n for status, n in self.counts.items() if not Status(status).done)

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "sweep": self.sweep,
            "store": str(self.store),
            "run": self.run,
            "cells": self.num_cells,
            "held": self.num_held,
            "ran": self.num_ran,
            "counts": self.counts,
            "interrupted": self.interrupted,
        }


@dataclass(frozen=True)
class Forecast:
    """What a sweep would run: a task, its seconds here, and whether the store holds it already."""

    task: Task
    seconds: float
    held: bool


def main_device(tasks: list[Task]) -> str:
    """The device whose facts the run's environment states: the first that is measured."""
    return next((task.device for task in tasks if task.point.source == "measured"), "cpu")


def dry_run(
    sweep: Sweep, path: Path, new_run: bool = False, client: Client | None = None
) -> list[Forecast]:
    """What ``run_sweep`` would do, and how long it would take. Nothing is written."""
    tasks = plan(sweep)
    held = {} if new_run else _held(sweep, path, main_device(tasks))
    with _ours(client) as worker:
        worker.check(kinds(tasks))
        seconds = worker.estimate([(task.point, task.device) for task in tasks])
    return [
        Forecast(task, spent, _is_done(held, task))
        for task, spent in zip(tasks, seconds, strict=True)
    ]


def _held(sweep: Sweep, path: Path, device: str) -> dict[Identity, Status]:
    """What the run that would be continued holds; nothing where there is no store yet."""
    if not path.exists():
        return {}
    wanted = environment(device).fingerprint
    with Store.open(path) as store:
        for run in reversed(store.runs()):
            if run.sweep == sweep.name and run.environment.fingerprint == wanted:
                return store.identities(run.id)
    return {}


def _is_done(held: dict[Identity, Status], task: Task) -> bool:
    status = held.get(task.identity)
    return status is not None and status.done


def _ours(client: Client | None) -> AbstractContextManager[Client]:
    """A client that ends with the block, unless the caller lends one."""
    return Client() if client is None else nullcontext(client)


def run_sweep(
    sweep: Sweep, path: Path, new_run: bool = False, client: Client | None = None
) -> Summary:
    """Run what the store at ``path`` lacks of ``sweep``, one transaction a record.

    Cells that ended as killed, timeout or error are run again. Every name is checked before the
    store is touched; raises RequestError, StoreError or WorkerError. An interrupt ends the cell in
    flight and no more: the summary says so. ``client`` lends a warm worker.
    """
    tasks = plan(sweep)
    device = main_device(tasks)
    held = {} if new_run else _held(sweep, path, device)
    unknown = [task for task in tasks if not _is_done(held, task)]
    summary = Summary(sweep.name, path, len(tasks))
    with _ours(client) as worker:
        if unknown:
            worker.check(kinds(unknown))
        with Store.open(path, "w") as store:
            spec = sweep.model_dump(mode="json", by_alias=True)
            summary.run = store.begin_run(sweep.name, spec, environment(device), new_run)
            try:
                _run_tasks(tasks, worker, store, summary)
            except KeyboardInterrupt:
                summary.interrupted = True
            kept = store.identities(summary.run)
    found = Counter(str(kept[task.identity]) for task in tasks if task.identity in kept)
    summary.counts = dict(sorted(found.items()))
    return summary


def _run_tasks(tasks: list[Task], client: Client, store: Store, summary: Summary) -> None:
    assert summary.run is not None
    run = summary.run
    held = store.identities(run)
    todo = [task for task in tasks if not _is_done(held, task)]
    summary.num_held = len(tasks) - len(todo)
    progress = Progress(len(tasks), summary.num_held)

    def claim(task: Task) -> bool:
        lease_s = 2 * task.point.protocol.timeout_s + LEASE_SLACK_S
        mine = store.claim(run, task.identity, lease_s)
        if mine:
            progress.begin(task)
        return mine

    def settled(task: Task) -> bool:
        done = _is_done(store.identities(run), task)
        if done:
            progress.drop(task)
        return done

    with progress:
        if todo:
            progress.expect(_forecast(todo, client, progress))
        for task, record in run_local(todo, client, claim, settled):
            store.add(run, record)
            summary.num_ran += 1
            progress.end(task, record)


def _forecast(todo: list[Task], client: Client, progress: Progress) -> dict[Identity, float]:
    """Seconds of each task; nothing where it cannot be said, which is no reason not to run it."""
    try:
        seconds = client.estimate([(task.point, task.device) for task in todo])
    except WorkerError as error:
        progress.say(f"the time left is unknown: {error}")
        return {}
    return {task.identity: spent for task, spent in zip(todo, seconds, strict=True)}
