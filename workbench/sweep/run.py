"""A sweep, run: skip what the store holds, run the rest, keep every record at once."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from workbench.probe.workers.client import Client, WorkerError
from workbench.probe.workers.seat import Seat
from workbench.store import Store
from workbench.sweep.budget import is_spent, note_dropped
from workbench.sweep.ceilings import ceilings_for
from workbench.sweep.engines.local import run_local
from workbench.sweep.order import DryRun, Forecast, Order, Summary
from workbench.sweep.pace import Deadline, forecast
from workbench.sweep.plan import CellId, Task, calibration_digests, heads, kinds, plan
from workbench.sweep.progress import Progress, title
from workbench.sweep.schedule import longest_first
from workbench.sweep.workers import seats
from workbench.vocabulary.calibration import Choice
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.fields import Source
from workbench.vocabulary.record import Environment, Status
from workbench.vocabulary.sweep import Sweep

LEASE_SLACK_S = 600.0
"""What a claim lasts beyond twice the time-out of its cell: workers have to start, too."""


def main_device(tasks: list[Task]) -> str:
    """The device whose facts the run's environment states: the first that is measured."""
    return next((task.device for task in tasks if task.point.source == "measured"), "cpu")


def environment_of(tasks: list[Task], place: Seat) -> Environment:
    """The environment of a run: also the calibrations that it was asked to predict with."""
    facts = place.environment(main_device(tasks))
    digests = sorted(calibration_digests(tasks))
    return facts.model_copy(update={"calibrations": digests}) if digests else facts


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
    place = seats(first, workers)[0]
    facts = environment_of(first, place)
    statuses = {} if new_run else _earlier(sweep, path, facts).held
    with ExitStack() as stack:
        worker = _clients([place], client, stack)[0]
        with checked(worker, first):
            tasks = plan(sweep, calibrations)
        seconds = forecast(tasks, worker)
    cells = [
        Forecast(task, spent, _is_done(statuses, task))
        for task, spent in zip(tasks, seconds, strict=True)
    ]
    return DryRun(cells, len(seats(tasks, workers)))


@contextmanager
def checked(client: Client, tasks: list[Task]) -> Iterator[None]:
    """Let a worker start and check the names of ``tasks`` beside what the caller does meanwhile.

    Raises RequestError for a wrong one at the end.
    """
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.check, kinds(tasks))
        yield
        answer.result()


@dataclass(frozen=True)
class Earlier:
    """What the run that would be continued holds; nothing where there is no store yet."""

    held: dict[CellId, Status] = field(default_factory=dict)
    is_spent: bool = False
    """Whether it came to the end of the sweep's own minutes."""


def _earlier(sweep: Sweep, path: Path, facts: Environment) -> Earlier:
    if not path.exists():
        return Earlier()
    with Store.open(path) as store:
        for run in reversed(store.runs()):
            if run.sweep == sweep.name and run.environment.fingerprint == facts.fingerprint:
                return Earlier(store.identities(run.id), is_spent(store, run.id))
    return Earlier()


def _is_done(statuses: dict[CellId, Status], task: Task) -> bool:
    status = statuses.get(task.identity)
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
    source: Source | None = None,
) -> Summary:
    """Run what the store at ``path`` lacks of ``sweep``, one transaction a record.

    Cells that ended as killed, timeout or error are run again. Every name is checked before the
    store is touched; raises RequestError, StoreError or WorkerError. An interrupt ends the cells
    in flight and no more: the summary says so. ``client`` lends a warm worker; ``workers`` is
    explained at ``seats``; ``calibrations`` go before those that the sweep names; ``trace`` is a
    folder for a profiler trace of each measured cell; ``source`` leaves the cells of the other
    source to another call.

    Within ``max_minutes`` of this call no cell is begun that would end after them, by its forecast
    and by what the others took; then cells are begun in the order of the sweep, which has the most
    valuable first. Without it the sweep's own ``max_minutes`` hold: what they have no room for is
    noted on the run, and no later call runs it unless it is given minutes.
    """
    if max_minutes is not None and not max_minutes > 0:
        raise RequestError(f"max_minutes {max_minutes:g}: more than 0 are needed")
    minutes = sweep.max_minutes if max_minutes is None else max_minutes
    stop_at = None if minutes is None else time.monotonic() + 60 * minutes
    every = plan(sweep, calibrations)
    places = seats(every, workers)
    facts = environment_of(every, places[0])
    tasks = [task for task in every if source in (None, task.point.source)]
    if not tasks:
        raise RequestError(f"source {source}: no cell of sweep {sweep.name} is {source}")
    earlier = Earlier() if new_run else _earlier(sweep, path, facts)
    kept_out = earlier.is_spent and max_minutes is None
    unknown = [] if kept_out else [t for t in tasks if not _is_done(earlier.held, t)]
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
                unbegun = _run_tasks(tasks, clients, store, summary, stop_at, kept_out)
                titles = [title(task) for task in unbegun]
                if max_minutes is None:
                    summary.dropped = titles
                else:
                    summary.unbegun = titles
                if not kept_out and source != "predicted":
                    note_dropped(store, summary.run, minutes, unbegun if summary.dropped else [])
            except KeyboardInterrupt:
                summary.interrupted = True
            identities = store.identities(summary.run)
    counts = Counter(
        str(identities[task.identity]) for task in tasks if task.identity in identities
    )
    summary.counts = dict(sorted(counts.items()))
    return summary


@dataclass(frozen=True)
class Local:
    """The engine that runs cells in worker processes of this machine: ``run_sweep``."""

    workers: int | None = None
    max_minutes: float | None = None
    source: Source | None = None

    def forecast(self, order: Order) -> DryRun:
        return dry_run(
            order.sweep,
            order.store,
            order.new_run,
            workers=self.workers,
            calibrations=order.calibrations,
        )

    def run(self, order: Order) -> Summary:
        return run_sweep(
            order.sweep,
            order.store,
            order.new_run,
            workers=self.workers,
            calibrations=order.calibrations,
            trace=order.trace,
            max_minutes=self.max_minutes,
            source=self.source,
        )


def _run_tasks(
    tasks: list[Task],
    clients: list[Client],
    store: Store,
    summary: Summary,
    stop_at: float | None,
    kept_out: bool,
) -> list[Task]:
    """Run what is not done; return what the minutes had no room for, now or, kept out, earlier."""
    assert summary.run is not None
    run = summary.run
    statuses = store.identities(run)
    todo = [task for task in tasks if not _is_done(statuses, task)]
    summary.num_held = len(tasks) - len(todo)
    if kept_out:
        return todo
    progress = Progress(len(tasks), summary.num_held, len(clients), stop_at)

    def claim(task: Task) -> bool:
        lease_s = 2 * task.point.protocol.timeout_s + LEASE_SLACK_S
        mine = store.claim(run, task.identity, lease_s)
        if mine:
            progress.begin(task)
        return mine

    def settled(task: Task) -> bool:
        is_done = _is_done(store.identities(run), task)
        if is_done:
            progress.drop(task)
        return is_done

    with progress:
        if len(clients) > 1:
            progress.say(_staffing(clients))
        ceilings = ceilings_for(todo, clients[0], store, run, progress.say)
        for client in clients:
            client.ceilings = ceilings
        if todo:
            seconds = _seconds(todo, clients[0], progress)
            progress.expect(seconds)
            if len(clients) > 1 and seconds and stop_at is None:
                todo = longest_first(todo, [seconds[task.identity] for task in todo])
        over = Deadline(stop_at, lambda task: progress.pace.seconds(task.identity))
        with closing(run_local(todo, clients, claim, settled, over)) as records:
            for task, record in records:
                store.add(run, record)
                summary.num_ran += 1
                progress.end(task, record)
    return over.left


def _staffing(clients: list[Client]) -> str:
    seat = clients[0].seat
    each = [] if seat.gpu is None else ["a GPU each"]
    if seat.threads is not None:
        each.append(f"{seat.threads} thread{'s' * (seat.threads != 1)} each")
    return f"{len(clients)} workers, {', '.join(each)}"


def _seconds(todo: list[Task], client: Client, progress: Progress) -> dict[CellId, float]:
    """Seconds of each task; nothing where it cannot be said, which is no reason not to run it."""
    try:
        seconds = forecast(todo, client)
    except WorkerError as error:
        progress.say(f"the time left is unknown: {error}")
        return {}
    return {task.identity: spent for task, spent in zip(todo, seconds, strict=True)}
