"""A sweep, run: skip what the store holds, run the rest, keep every record at once."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.probe.workers.client import Client, WorkerError
from workbench.probe.workers.seat import Seat
from workbench.store import Store
from workbench.sweep.ceilings import ceilings_for
from workbench.sweep.engines.local import Deadline, run_local
from workbench.sweep.plan import CellId, Task, calibration_digests, heads, kinds, plan
from workbench.sweep.progress import Progress
from workbench.sweep.schedule import longest_first, wall_seconds
from workbench.sweep.workers import seats
from workbench.vocabulary.calibration import Choice
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Environment, Status
from workbench.vocabulary.sweep import Sweep

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
    num_workers: int = 1
    num_left: int = 0
    """Cells that no job took to an end."""
    num_unbegun: int = 0
    """Cells that were left when the minutes were over; the next call goes on with them."""

    @property
    def num_failed(self) -> int:
        """Cells that did not end, so that the next sweep tries them again."""
        failed = sum(n for status, n in self.counts.items() if not Status(status).done)
        return failed + self.num_left

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "sweep": self.sweep,
            "store": str(self.store),
            "run": self.run,
            "cells": self.num_cells,
            "workers": self.num_workers,
            "held": self.num_held,
            "ran": self.num_ran,
            "counts": self.counts,
            "interrupted": self.interrupted,
            "unbegun": self.num_unbegun,
        }


@dataclass(frozen=True)
class Forecast:
    """What a sweep would run: a task, its seconds here, and whether the store holds it already."""

    task: Task
    seconds: float
    held: bool


@dataclass(frozen=True)
class DryRun:
    """Every task of a sweep with its forecast, and how many workers would share them."""

    cells: list[Forecast]
    workers: int
    note: str | None = None
    """What else there is to know before it runs."""
    rate: str = "the rate of a plain matmul here"
    """What the FLOPs of measured cells were divided by."""

    @property
    def seconds(self) -> float:
        """Of all that is left to run, one task after another."""
        return sum(cell.seconds for cell in self.cells if not cell.held)

    @property
    def wall_s(self) -> float:
        """Until the last worker would end."""
        left = (cell.seconds for cell in self.cells if not cell.held)
        return wall_seconds(left, self.workers)


def main_device(tasks: list[Task]) -> str:
    """The device whose facts the run's environment states: the first that is measured."""
    return next((task.device for task in tasks if task.point.source == "measured"), "cpu")


def environment_of(tasks: list[Task], place: Seat) -> Environment:
    """The environment of a run: also the calibrations that it was asked to predict with."""
    found = place.environment(main_device(tasks))
    digests = sorted(calibration_digests(tasks))
    return found.model_copy(update={"calibrations": digests}) if digests else found


def dry_run(
    sweep: Sweep,
    path: Path,
    new_run: bool = False,
    client: Client | None = None,
    workers: int | None = None,
    calibrations: Choice | None = None,
) -> DryRun:
    """What ``run_sweep`` would do, and how long it would take. Nothing is written."""
    first = heads(sweep, calibrations)
    places = seats(first, workers)
    held = {} if new_run else _held(sweep, path, environment_of(first, places[0]))
    with ExitStack() as stack:
        worker = _clients(places[:1], client, stack)[0]
        with checked(worker, first):
            tasks = plan(sweep, calibrations)
        seconds = worker.estimate([(task.point, task.device) for task in tasks])
    cells = [
        Forecast(task, spent, _is_done(held, task))
        for task, spent in zip(tasks, seconds, strict=True)
    ]
    return DryRun(cells, len(places))


@contextmanager
def checked(client: Client, tasks: list[Task]) -> Iterator[None]:
    """Let a worker start and check the names of ``tasks`` beside what the caller does meanwhile.

    Raises RequestError for a wrong one at the end.
    """
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.check, kinds(tasks))
        yield
        answer.result()


def _held(sweep: Sweep, path: Path, facts: Environment) -> dict[CellId, Status]:
    """What the run that would be continued holds; nothing where there is no store yet."""
    if not path.exists():
        return {}
    with Store.open(path) as store:
        for run in reversed(store.runs()):
            if run.sweep == sweep.name and run.environment.fingerprint == facts.fingerprint:
                return store.identities(run.id)
    return {}


def _is_done(held: dict[CellId, Status], task: Task) -> bool:
    status = held.get(task.identity)
    return status is not None and status.done


def _clients(places: list[Seat], lent: Client | None, stack: ExitStack) -> list[Client]:
    """A client a seat, each of which ends with ``stack``; the first may be lent by the caller."""
    own = places if lent is None else places[1:]
    clients = [stack.enter_context(Client(place)) for place in own]
    return clients if lent is None else [lent, *clients]


def run_sweep(
    sweep: Sweep,
    path: Path,
    new_run: bool = False,
    client: Client | None = None,
    workers: int | None = None,
    calibrations: Choice | None = None,
    trace: Path | None = None,
    max_minutes: float | None = None,
) -> Summary:
    """Run what the store at ``path`` lacks of ``sweep``, one transaction a record.

    Cells that ended as killed, timeout or error are run again. Every name is checked before the
    store is touched; raises RequestError, StoreError or WorkerError. An interrupt ends the cells
    in flight and no more: the summary says so. ``client`` lends a warm worker; ``workers`` is
    explained at ``seats``; ``calibrations`` go before those that the sweep names; ``trace`` is a
    folder for a profiler trace of each measured cell. After ``max_minutes`` no cell is begun; then
    they are begun in the order of the sweep, which has the most valuable first.
    """
    if max_minutes is not None and not max_minutes > 0:
        raise RequestError(f"max_minutes {max_minutes:g}: more than 0 are needed")
    stop_at = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    tasks = plan(sweep, calibrations)
    places = seats(tasks, workers)
    facts = environment_of(tasks, places[0])
    held = {} if new_run else _held(sweep, path, facts)
    unknown = [task for task in tasks if not _is_done(held, task)]
    summary = Summary(sweep.name, path, len(tasks), num_workers=len(places))
    with ExitStack() as stack:
        clients = _clients(places[: max(1, len(unknown))], client, stack)
        for each in clients:
            each.trace = trace
        if unknown:
            clients[0].check(kinds(unknown))
        with Store.open(path, "w") as store:
            spec = sweep.model_dump(mode="json", by_alias=True)
            summary.run = store.begin_run(sweep.name, spec, facts, new_run)
            try:
                _run_tasks(tasks, clients, store, summary, stop_at)
            except KeyboardInterrupt:
                summary.interrupted = True
            kept = store.identities(summary.run)
    found = Counter(str(kept[task.identity]) for task in tasks if task.identity in kept)
    summary.counts = dict(sorted(found.items()))
    return summary


def _run_tasks(
    tasks: list[Task],
    clients: list[Client],
    store: Store,
    summary: Summary,
    stop_at: float | None,
) -> None:
    assert summary.run is not None
    run = summary.run
    held = store.identities(run)
    todo = [task for task in tasks if not _is_done(held, task)]
    summary.num_held = len(tasks) - len(todo)
    progress = Progress(len(tasks), summary.num_held, len(clients))

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
        if len(clients) > 1:
            progress.say(_staffing(clients))
        ceilings = ceilings_for(todo, clients[0], store, run, progress.say)
        for client in clients:
            client.ceilings = ceilings
        if todo:
            forecast = _forecast(todo, clients[0], progress)
            progress.expect(forecast)
            if len(clients) > 1 and forecast and stop_at is None:
                todo = longest_first(todo, [forecast[task.identity] for task in todo])
        over = Deadline(stop_at)
        with closing(run_local(todo, clients, claim, settled, over)) as records:
            for task, record in records:
                store.add(run, record)
                summary.num_ran += 1
                progress.end(task, record)
        summary.num_unbegun = over.left


def _staffing(clients: list[Client]) -> str:
    seat = clients[0].seat
    each = [] if seat.gpu is None else ["a GPU each"]
    if seat.threads is not None:
        each.append(f"{seat.threads} thread{'s' * (seat.threads != 1)} each")
    return f"{len(clients)} workers, {', '.join(each)}"


def _forecast(todo: list[Task], client: Client, progress: Progress) -> dict[CellId, float]:
    """Seconds of each task; nothing where it cannot be said, which is no reason not to run it."""
    try:
        seconds = client.estimate([(task.point, task.device) for task in todo])
    except WorkerError as error:
        progress.say(f"the time left is unknown: {error}")
        return {}
    return {task.identity: spent for task, spent in zip(todo, seconds, strict=True)}
