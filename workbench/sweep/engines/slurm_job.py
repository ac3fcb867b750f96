"""What a job of a sweep under Slurm does: its points, one after another, into a shard of its own.

A job may end at any time: it is requeued, or another one gets its points. Whoever goes on looks at
what the shards of earlier starts hold. A cell that was under way when two starts ended is given
up, since it would end the third one too; an announced end counts only against a cell that had half
of the job's time to itself.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from workbench.probe.workers.client import Client
from workbench.probe.workers.seat import Seat
from workbench.store import Store
from workbench.sweep.ceilings import ceilings_for
from workbench.sweep.engines.slurm_folder import Batch, Job, Run, cell_id
from workbench.sweep.plan import CellId, Task, place, place_elsewhere
from workbench.sweep.progress import Progress
from workbench.sweep.run import environment_of
from workbench.vocabulary.record import Record, Status
from workbench.vocabulary.sweep import Point

MAX_STRIKES = 2
_ENDS = {
    Status.TIMEOUT: "the time limit of its job ended it",
    Status.KILLED: "its job ended while it ran",
}


def is_same(task: Task, identity: CellId) -> bool:
    """Whether a record is of this task, which names a GPU by its word in the sweep."""
    key, source, device = identity
    if (key, source) != task.identity[:2]:
        return False
    if source == "predicted" or task.device == "cpu":
        return device == task.device_name
    return task.device == "auto" or device != "cpu"


def by_task(tasks: Mapping[str, Task], statuses: Mapping[CellId, Status]) -> dict[str, Status]:
    """How the tasks ended, by their names, as far as ``statuses`` says.

    Of starts on several kinds of GPUs one counts that is done.
    """
    by_key: dict[tuple[str, str], list[CellId]] = {}
    for identity in statuses:
        by_key.setdefault(identity[:2], []).append(identity)
    by_name: dict[str, Status] = {}
    for name, task in tasks.items():
        for identity in by_key.get(task.identity[:2], ()):
            if is_same(task, identity) and not (name in by_name and by_name[name].done):
                by_name[name] = statuses[identity]
    return by_name


class Work:
    """Called by submitit in the job. Its pickle holds two strings and a number."""

    def __init__(self, folder: str, number: int, ended_as: str = Status.KILLED) -> None:
        self.folder, self.number, self.ended_as = folder, number, ended_as

    def __call__(self) -> None:
        job = Job(Batch(Path(self.folder)), self.number)
        run_job(job, Status(self.ended_as), _start_name())

    def checkpoint(self) -> Any:
        """What submitit requeues when Slurm announces the end: the same points go on."""
        from submitit.helpers import DelayedSubmission

        # The end itself may come before the requeue has been asked for: it must not cut that off.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return DelayedSubmission(Work(self.folder, self.number, Status.TIMEOUT))


def _start_name() -> str:
    job, restart = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_RESTART_COUNT", "0")
    return f"{job}-{restart}"


def _leave(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Slurm ends the workers with the same signal: their end must not become a record.
    raise SystemExit(128 + number)


def run_job(job: Job, ended_as: Status, start: str) -> None:
    """Run what the earlier starts of ``job`` have left; ``ended_as`` says how the last ended."""
    signal.signal(signal.SIGTERM, _leave)
    run, content = Run(job.batch.folder.parent), job.content
    words = {
        cell_id(point): Task(point, *place_elsewhere(point.source, point.device))
        for point in content.points
    }
    done, strikes = set[str](), Counter(content.strikes)
    for shard in job.shards:
        # An earlier start may have been on another node, with a GPU of another name.
        recorded, under_way = look_into(shard, run.file.run)
        done |= by_task(words, recorded).keys()
        for identity in under_way:
            strikes.update(list(by_task(words, {identity: Status.KILLED})))
    here = [
        Task(task.point, *place(task.point.source, task.point.device)) for task in words.values()
    ]
    unfinished = [task for task in here if cell_id(task.point) not in done]
    stem = job.batch.folder / f"{job.number}.{start}"
    part, notes = Path(f"{stem}.part.db"), Path(f"{stem}.done")
    threads = None if "OMP_NUM_THREADS" in os.environ else os.environ.get("SLURM_CPUS_PER_TASK")
    seat = Seat(threads=int(threads) if threads else None)
    progress = Progress(len(here), len(here) - len(unfinished))
    with Client(seat) as client, Store.open(part, "w") as store, notes.open("a") as file:
        client.trace = None if content.trace is None else Path(content.trace)
        spec = run.file.sweep.model_dump(mode="json", by_alias=True)
        facts = environment_of(here, seat)
        store.begin_run(run.file.sweep.name, spec, facts, run_id=run.file.run)
        lease_s = 60.0 * job.batch.file.minutes
        client.ceilings = ceilings_for(unfinished, client, store, run.file.run, print)
        for task in unfinished:
            # Another process of this job, if somebody started several, may be at it or past it.
            if not store.claim(run.file.run, task.identity, lease_s):
                progress.drop(task)
                continue
            struck = strikes[cell_id(task.point)]
            progress.begin(task)
            if struck >= MAX_STRIKES:
                record = _given_up(task, seat, ended_as, struck)
            else:
                began = time.monotonic()
                try:
                    record = client.run(task.point)
                except SystemExit:
                    if time.monotonic() - began < job.batch.file.minutes * 60 / 2:
                        store.release(run.file.run, task.identity)
                    raise
            store.add(run.file.run, record)
            progress.end(task, record)
            print(record.status, task.identity, file=file, flush=True)
        others = store.claimed(run.file.run)
    # The last one of them is through when nobody holds a cell any more.
    if not others:
        with suppress(FileNotFoundError):
            part.rename(f"{stem}.db")


def look_into(shard: Path, run: str) -> tuple[dict[CellId, Status], list[CellId]]:
    """What the shard of a start that has ended holds, and what was under way at its end."""
    with Store.open(shard) as store:
        if not any(info.id == run for info in store.runs()):
            return {}, []
        return store.identities(run), store.claimed(run)


def _given_up(task: Task, seat: Seat, status: Status, struck: int) -> Record:
    error = f"{_ENDS[status]}, {struck} times"
    point: Point = task.point
    return Record(
        cell=point.cell,
        source=point.source,
        device=task.device_name,
        status=status,
        error=error,
        flags=[f"{status}: {error}"],
        environment=seat.environment(task.device if point.source == "measured" else "cpu"),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
