"""A sweep on a cluster from beginning to end, for ``--engine slurm``."""

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
from workbench.sweep.order import DryRun, Forecast, Order, Summary
from workbench.sweep.pace import forecast
from workbench.sweep.plan import Task, calibration_digests, check_ranks, heads, plan
from workbench.sweep.progress import Progress
from workbench.sweep.run import checked
from workbench.vocabulary.devices import DEVICES, entry_of
from workbench.vocabulary.errors import RequestError

FALLBACK_CARD = "h100-80gb"
"""Whose datasheet stands in for a forecast where the cluster does not say which GPUs it has."""


def jobs_folder(store: Path) -> Path:
    """Where the jobs of a store leave their files, unless the caller says otherwise."""
    return store.with_suffix(".jobs")


def _with_gpus(tasks: list[Task], request: Request) -> Request:
    """The request with its GPUs: one for each rank where the sweep measures on GPUs, else none."""
    check_ranks(tasks, here=False)
    on_gpu = [task for task in tasks if task.on_gpu]
    ranks = max((t.point.ranks for t in on_gpu), default=0)
    if request.gpus is None:
        return replace(request, gpus=ranks)
    device = next((t.device for t in on_gpu if t.device.startswith("cuda")), None)
    if not request.gpus and device:
        raise RequestError(f"gpus_per_task 0: the sweep measures on {device}; give at least 1")
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


@dataclass(frozen=True)
class Slurm:
    """The engine that runs cells as jobs of a cluster.

    A second run, after whatever ended the first, watches the jobs that still run, merges what the
    others left and submits the rest. An interrupt ends the watching, not the jobs.
    """

    request: Request
    folder: Path | None = None
    """Where the jobs leave their files; None: beside the store."""

    def forecast(self, order: Order) -> DryRun:
        first, request, cluster, same_run = self._prepared(order)
        run = None if order.new_run else newest(self._jobs(order), same_run)
        card = _stand_in(cluster, request)
        with Client() as client:
            with checked(client, first):
                tasks = plan(order.sweep, order.calibrations, here=False)
                names = [cell_id(task.point, task.identity[0]) for task in tasks]
                by_name = dict(zip(names, tasks, strict=True))
                statuses = held(order.store, run.file.run, by_name) if run else {}
            seconds = forecast(tasks, client, card)
        cells = [
            Forecast(task, spent, name in statuses and statuses[name].done)
            for name, task, spent in zip(names, tasks, seconds, strict=True)
        ]
        num_jobs = _num_jobs(request, cluster, sum(not cell.held for cell in cells))
        note = mixture(request, cluster)
        if card == "cpu" or not any(task.on_gpu for task in tasks):
            return DryRun(cells, num_jobs, note)
        rate = f"the datasheet's peak of {card}, which stands in for the cluster's GPUs"
        return DryRun(cells, num_jobs, note, rate)

    def run(self, order: Order) -> Summary:
        first, request, cluster, same_run = self._prepared(order)
        jobs = self._jobs(order)
        with Client() as client:
            with checked(client, first):
                tasks = plan(order.sweep, order.calibrations, here=False)
            with Store.open(order.store, "w"):  # hours later is no time to learn that it cannot be
                pass
            check_folder(jobs, "folder")
            with locked(jobs):
                run = None if order.new_run else newest(jobs, same_run)
                coordinator = Coordinator(
                    run or begin(jobs, same_run),
                    order.store.absolute(),
                    request,
                    cluster,
                    tasks,
                    order.trace,
                )
                summary = Summary(order.sweep.name, order.store, len(tasks))
                return _watch(coordinator, client, tasks, summary)

    def _jobs(self, order: Order) -> Path:
        return (self.folder or jobs_folder(order.store)).absolute()

    def _prepared(self, order: Order) -> tuple[list[Task], Request, Cluster, RunFile]:
        """What the cluster is to be asked, judged by a task of each kind."""
        if order.store.exists():
            with Store.open(order.store):  # a file of another kind is refused at once
                pass
        first = heads(order.sweep, order.calibrations, here=False)
        request = _with_gpus(first, self.request)
        cluster = check(request, self._jobs(order))
        digests = calibration_digests(first)
        run = wanted_run(
            order.sweep, cluster.partition, request.gpus or 0, digests, request.gpu_type
        )
        return first, request, cluster, run


def _watch(
    coordinator: Coordinator, client: Client, tasks: list[Task], summary: Summary
) -> Summary:
    summary.run = coordinator.run.file.run
    coordinator.resume()
    names_done = {name for name, status in coordinator.held().items() if status.done}
    summary.num_held = len(names_done)
    under_way = coordinator.under_way()
    names = [cell_id(task.point, task.identity[0]) for task in tasks]
    todo = [
        task
        for name, task in zip(names, tasks, strict=True)
        if name not in names_done and name not in under_way
    ]
    summary.num_workers = _num_jobs(coordinator.request, coordinator.cluster, len(todo))
    progress = Progress(len(tasks), len(names_done))
    with progress:
        if todo and (sentence := mixture(coordinator.request, coordinator.cluster)):
            progress.say(sentence)
        if coordinator.live:
            n = len(coordinator.live)
            progress.say(f"{_jobs(n)} of an earlier call {'has' if n == 1 else 'have'} not ended")
        if todo:
            seconds = forecast(todo, client, _stand_in(coordinator.cluster, coordinator.request))
            client.close()
            coordinator.start([task.point for task in todo], seconds, summary.num_workers)
            first = coordinator.live[-1].batch.file
            progress.say(
                f"{len(todo)} cells in {_jobs(first.num_jobs)}: {', '.join(first.jobs or ())}"
            )
        try:
            summary.num_ran = _until_all_ended(coordinator, progress, len(names_done))
        except KeyboardInterrupt:
            summary.interrupted = True
    counts = Counter(str(status) for status in coordinator.held().values())
    summary.counts = dict(sorted(counts.items()))
    summary.num_left = len(tasks) - sum(counts.values())
    return summary


def _jobs(count: int) -> str:
    return f"{count} job{'s' * (count != 1)}"


def _until_all_ended(coordinator: Coordinator, progress: Progress, num_held: int) -> int:
    pause, ran, reported = POLL_S, 0, 0
    while coordinator.live:
        time.sleep(pause)
        recorded = coordinator.settle()
        ran += len(recorded)
        now = ran + sum(job.num_done for job in coordinator.live)
        pause = poll_seconds(pause, now != reported)
        for note in coordinator.notes:
            progress.say(note)
        coordinator.notes.clear()
        if now != reported:
            progress.at(num_held + now)
        reported = now
    return ran
