"""A sweep on a cluster from beginning to end: ``run_sweep``'s sibling for ``--engine slurm``."""

import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.probe.workers.client import Client
from workbench.probe.workers.folders import check_folder
from workbench.store import Store
from workbench.sweep.engines.slurm import POLL_S, Coordinator, held, poll_seconds
from workbench.sweep.engines.slurm_check import Request, check, mixture
from workbench.sweep.engines.slurm_cluster import Cluster
from workbench.sweep.engines.slurm_folder import (
    RunFile,
    begin,
    cell_id,
    locked,
    newest,
    wanted_run,
)
from workbench.sweep.plan import Task, calibration_digests, check_ranks, heads, plan
from workbench.sweep.progress import Progress
from workbench.sweep.run import DryRun, Forecast, Summary, checked
from workbench.vocabulary.calibration import Choice
from workbench.vocabulary.devices import DEVICES, entry_of
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.sweep import Sweep

FALLBACK_CARD = "h100-80gb"
"""Whose datasheet stands in for a forecast where the cluster does not say which GPUs it has."""


def jobs_folder(store: Path) -> Path:
    """Where the jobs of a store leave their files, unless the caller says otherwise."""
    return store.with_suffix(".jobs")


@dataclass(frozen=True)
class Order:
    """All that ``workbench sweep --engine slurm`` is told."""

    sweep: Sweep
    store: Path
    request: Request
    new_run: bool = False
    folder: Path | None = None
    calibrations: Choice | None = None
    trace: Path | None = None

    @property
    def jobs(self) -> Path:
        """Where the jobs leave their files."""
        return (self.folder or jobs_folder(self.store)).absolute()


def _on_gpu(task: Task) -> bool:
    return task.point.source == "measured" and task.device != "cpu"


def _asked(tasks: list[Task], request: Request) -> Request:
    """The request with its GPUs: one for each rank where the sweep measures on GPUs, else none."""
    check_ranks(tasks, here=False)
    on_gpu = [task for task in tasks if _on_gpu(task)]
    ranks = max((t.point.ranks for t in on_gpu), default=0)
    if request.gpus is None:
        return replace(request, gpus=ranks)
    named = next((t.device for t in on_gpu if t.device.startswith("cuda")), None)
    if not request.gpus and named:
        raise RequestError(f"gpus_per_task 0: the sweep measures on {named}; give at least 1")
    if 0 < request.gpus < ranks:
        raise RequestError(f"gpus_per_task {request.gpus}: cells of {ranks} ranks take a GPU each")
    return request


def _num_jobs(request: Request, cluster: Cluster, num_cells: int) -> int:
    """Jobs at once: as asked, or as many as the partition has room for; one cell each at least."""
    room = cluster.room(request.gpus or 0, request.gpu_type)
    return max(1, min(request.workers or room, num_cells, cluster.most_jobs))


def _stand_in(cluster: Cluster, request: Request) -> str:
    """The device entry that a forecast takes for the cluster's GPUs; ``cpu`` without any."""
    if not request.gpus:
        return "cpu"
    for kind in (request.gpu_type,) if request.gpu_type else cluster.gpu_types:
        for name in DEVICES:
            if kind.lower() == name.partition("-")[0]:
                return name
        try:
            return entry_of(kind)
        except RequestError:
            continue
    return FALLBACK_CARD


def _forecast(tasks: list[Task], client: Client, card: str) -> list[float]:
    asked = [(task.point, card if _on_gpu(task) else task.device) for task in tasks]
    return client.estimate(asked)


def dry_run_slurm(order: Order) -> DryRun:
    """What ``run_slurm`` would submit, and how long it would take. Nothing is written."""
    first, request, cluster, wanted = _prepared(order)
    run = None if order.new_run else newest(order.jobs, wanted)
    card = _stand_in(cluster, request)
    with Client() as client:
        with checked(client, first):
            tasks = plan(order.sweep, order.calibrations, here=False)
            names = [cell_id(task.point, task.identity[0]) for task in tasks]
            by_name = dict(zip(names, tasks, strict=True))
            found = held(order.store, run.file.run, by_name) if run else {}
        seconds = _forecast(tasks, client, card)
    cells = [
        Forecast(task, spent, name in found and found[name].done)
        for name, task, spent in zip(names, tasks, seconds, strict=True)
    ]
    num_jobs = _num_jobs(request, cluster, sum(not cell.held for cell in cells))
    note = mixture(request, cluster)
    if card == "cpu" or not any(map(_on_gpu, tasks)):
        return DryRun(cells, num_jobs, note)
    rate = f"the datasheet's peak of {card}, which stands in for the cluster's GPUs"
    return DryRun(cells, num_jobs, note, rate)


def run_slurm(order: Order) -> Summary:
    """Run what is lacking as jobs of the cluster, into the store.

    A second call, after whatever ended the first, watches the jobs that still run, merges what
    the others left and submits the rest. Raises RequestError before anything is submitted, and
    Failure. An interrupt ends the watching, not the jobs.
    """
    first, request, cluster, wanted = _prepared(order)
    with Client() as client:
        with checked(client, first):
            tasks = plan(order.sweep, order.calibrations, here=False)
        with Store.open(order.store, "w"):  # hours later is no time to learn that it cannot be
            pass
        check_folder(order.jobs, "folder")
        with locked(order.jobs):
            run = None if order.new_run else newest(order.jobs, wanted)
            coordinator = Coordinator(
                run or begin(order.jobs, wanted),
                order.store.absolute(),
                request,
                cluster,
                tasks,
                order.trace,
            )
            summary = Summary(order.sweep.name, order.store, len(tasks))
            return _watch(coordinator, client, tasks, summary)


def _prepared(order: Order) -> tuple[list[Task], Request, Cluster, RunFile]:
    """What the cluster is to be asked, judged by a task of each kind."""
    if order.store.exists():
        with Store.open(order.store):  # a file of another kind is refused at once
            pass
    first = heads(order.sweep, order.calibrations, here=False)
    request = _asked(first, order.request)
    cluster = check(request, order.jobs)
    digests = calibration_digests(first)
    wanted = wanted_run(
        order.sweep, cluster.partition, request.gpus or 0, digests, request.gpu_type
    )
    return first, request, cluster, wanted


def _watch(found: Coordinator, client: Client, tasks: list[Task], summary: Summary) -> Summary:
    summary.run = found.run.file.run
    found.resume()
    done = {name for name, status in found.held().items() if status.done}
    summary.num_held = len(done)
    under_way = found.under_way()
    names = [cell_id(task.point, task.identity[0]) for task in tasks]
    todo = [
        task
        for name, task in zip(names, tasks, strict=True)
        if name not in done and name not in under_way
    ]
    summary.num_workers = _num_jobs(found.request, found.cluster, len(todo))
    progress = Progress(len(tasks), len(done))
    with progress:
        if todo and (told := mixture(found.request, found.cluster)):
            progress.say(told)
        if found.live:
            n = len(found.live)
            progress.say(f"{_jobs(n)} of an earlier call {'has' if n == 1 else 'have'} not ended")
        if todo:
            seconds = _forecast(todo, client, _stand_in(found.cluster, found.request))
            client.close()
            found.start([task.point for task in todo], seconds, summary.num_workers)
            first = found.live[-1].batch.file
            progress.say(
                f"{len(todo)} cells in {_jobs(first.num_jobs)}: {', '.join(first.jobs or ())}"
            )
        try:
            summary.num_ran = _until_all_ended(found, progress, len(done))
        except KeyboardInterrupt:
            summary.interrupted = True
    counts = Counter(str(status) for status in found.held().values())
    summary.counts = dict(sorted(counts.items()))
    summary.num_left = len(tasks) - sum(counts.values())
    return summary


def _jobs(count: int) -> str:
    return f"{count} job{'s' * (count != 1)}"


def _until_all_ended(found: Coordinator, progress: Progress, num_held: int) -> int:
    pause, ran, shown = POLL_S, 0, 0
    while found.live:
        time.sleep(pause)
        recorded = found.settle()
        ran += len(recorded)
        now = ran + sum(job.num_done for job in found.live)
        pause = poll_seconds(pause, now != shown)
        for note in found.notes:
            progress.say(note)
        found.notes.clear()
        if now != shown:
            progress.at(num_held + now)
        shown = now
    return ran
