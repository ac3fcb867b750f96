"""A sweep under Slurm: arrays of jobs through submitit, a shard a start, merged as jobs end.

Slurm schedules, submitit submits, requeues and knows how jobs are; what stands here divides the
cells, remembers in the folder what was submitted, and submits again what ended jobs have left.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from workbench.store import Store
from workbench.store.merge import merge
from workbench.sweep.engines.slurm_check import Request, gpus_per_node
from workbench.sweep.engines.slurm_cluster import Cluster, ask, last_line
from workbench.sweep.engines.slurm_folder import Batch, Job, JobFile, Run, cell_id
from workbench.sweep.engines.slurm_job import Work, by_task, look_into
from workbench.sweep.engines.slurm_states import State, States
from workbench.sweep.plan import CellId, Task
from workbench.sweep.schedule import shares
from workbench.vocabulary.errors import Failure, RequestError
from workbench.vocabulary.record import Status
from workbench.vocabulary.sweep import Point

POLL_S = 2.0
MAX_POLL_S = 15.0
UNKNOWN_S = 600.0
"""How long a job may be unknown to the accounting before it counts as lost."""
MAX_FRUITLESS = 2
"""Jobs in a row that end before their first cell until it is no use to submit another."""


def held(store: Path, run: str, tasks: Mapping[str, Task]) -> dict[str, Status]:
    """How the tasks ended that the store holds a record of."""
    if not store.exists():
        return {}
    with Store.open(store) as records:
        if not any(info.id == run for info in records.runs()):
            return {}
        return by_task(tasks, records.identities(run))


def submit(batch: Batch, request: Request, cluster: Cluster, ended_as: Status) -> None:
    """Hand a batch to Slurm. RequestError with Slurm's own line where it refuses.

    What is pickled are ``Work`` objects. Their results are never read, nor any other pickle: what
    a job found is in its shard, which can be checked, while unpickling runs what it is given.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError

    most = max(len(job.content.points) for job in batch.jobs)
    executor = SlurmExecutor(batch.folder / "logs", max_num_timeout=2 * most + 1)
    options: dict[str, str | int | bool] = {"requeue": True, **request.more}
    executor.update_parameters(
        job_name=batch.file.name,
        partition=cluster.partition,
        time=request.minutes,
        # Slurm looks at limits twice a minute and warns early rather than late: a short limit
        # would be over before its job has begun.
        signal_delay_s=min(60, 20 * request.minutes - 19),
        array_parallelism=request.workers or batch.file.num_jobs,
        stderr_to_stdout=True,
        additional_parameters=options,
        **({"gpus_per_node": gpus_per_node(request)} if request.gpus else {}),
        **({"cpus_per_task": request.cpus} if request.cpus else {}),
    )
    folder = str(batch.folder)
    try:
        jobs = executor.submit_array(
            [Work(folder, number, ended_as) for number in range(batch.file.num_jobs)]
        )
    except FailedJobError as error:
        raise RequestError(f"engine slurm: {last_line(str(error))}") from None
    batch.set_jobs([job.job_id for job in jobs])


def find_lost_ids(batch: Batch) -> bool:
    """Ask Slurm for a batch whose coordinator ended before it knew the ids; False if not there."""
    name = f"--name={batch.file.name}"
    since = f"--starttime={batch.file.submitted_at}"
    form = ("--noheader", "--allocations", "--parsable2", "--format=JobID")
    ids = ask("sacct", name, since, *form).split()
    ids += ask("squeue", "--noheader", name, "--format=%A").split()
    if not ids:
        return False
    array = ids[0].partition("_")[0]
    # submitit makes no array of a single job.
    numbers = range(batch.file.num_jobs)
    batch.set_jobs([array] if len(numbers) == 1 else [f"{array}_{n}" for n in numbers])
    return True


class Coordinator:
    """Brings one run to its end. ``wait`` may be interrupted at any time; the jobs go on."""

    def __init__(
        self,
        run: Run,
        store: Path,
        request: Request,
        cluster: Cluster,
        tasks: Sequence[Task],
        trace: Path | None = None,
    ) -> None:
        self.run, self.store, self.request, self.cluster = run, store, request, cluster
        self.trace = None if trace is None else str(trace.absolute())
        self.tasks = {cell_id(task.point, task.identity[0]): task for task in tasks}
        self.strikes: Counter[str] = Counter()
        self.notes: list[str] = []
        self._states = States()
        self._fruitless: Counter[str] = Counter()
        self._seen_ended: set[str] = set()
        self.live: list[Job] = []

    def held(self) -> dict[str, Status]:
        """How the tasks ended that the store holds a record of."""
        return held(self.store, self.run.file.run, self.tasks)

    def resume(self) -> None:
        """Take over what earlier calls submitted: merge what has ended, watch what has not."""
        for batch in self.run.batches:
            if batch.file.jobs is None and not find_lost_ids(batch):
                continue
            self.live += [job for job in batch.jobs if not job.is_merged]
        self.settle(first=True)

    def under_way(self) -> set[str]:
        """The cells of jobs that have not ended."""
        return {cell_id(point) for job in self.live for point in job.content.points}

    def start(self, points: Sequence[Point], seconds: Sequence[float], num_jobs: int) -> None:
        """Submit ``points`` as one batch, of about equal seconds a job."""
        self._submit(
            [[points[i] for i in share] for share in shares(seconds, num_jobs) if share],
            Status.KILLED,
        )

    def _submit(self, parts: list[list[Point]], ended_as: Status) -> None:
        contents = [
            JobFile(
                points=tuple(part),
                trace=self.trace,
                strikes={n: self.strikes[n] for n in map(cell_id, part) if self.strikes[n]},
            )
            for part in parts
        ]
        batch = self.run.add(contents, self.request.minutes)
        submit(batch, self.request, self.cluster, ended_as)
        self.live += batch.jobs

    def settle(self, first: bool = False) -> list[str]:
        """Look at all jobs once: merge those that have ended and submit what they have left.

        Returns the cells that have a record now. At the ``first`` look nothing is submitted: what
        is missing then is planned together with what was never submitted.
        """
        states = self._states.look(self.live)
        recorded: list[str] = []
        unsettled: dict[Status, list[list[Point]]] = {}
        finished = [job for job in self.live if self._has_ended(job, states, first)]
        for job in finished:
            state = states.get(job.id or "", State())
            names, missing, began = self._collect(job)
            recorded += names
            if missing and not first and self._may_try_again(job, state.word, missing, began):
                how = Status.TIMEOUT if state.word == "TIMEOUT" else Status.KILLED
                unsettled.setdefault(how, []).append(missing)
        self.live = [job for job in self.live if job not in finished]
        for how, parts in unsettled.items():
            self._submit(parts, how)
        return recorded

    def _has_ended(self, job: Job, states: dict[str, State], first: bool) -> bool:
        state = states.get(job.id or "", State())
        if state == State():
            submitted = datetime.fromisoformat(job.batch.file.submitted_at)
            return (datetime.now() - submitted).total_seconds() > UNKNOWN_S
        if state.is_alive:
            self._seen_ended.discard(str(job.id))
            return False
        # A job that Slurm is about to requeue looks as if it had ended, for a moment.
        if state.word == "COMPLETED" or first or str(job.id) in self._seen_ended:
            return True
        self._seen_ended.add(str(job.id))
        return False

    def _collect(self, job: Job) -> tuple[list[str], list[Point], bool]:
        """Merge the shards of a job that has ended.

        Returns the cells with a record, the points without, and whether it ever began a cell.
        """
        merged: dict[CellId, Status] = {}
        under_way: list[CellId] = []
        for shard in job.shards:
            try:
                statuses, claimed = look_into(shard, self.run.file.run)
                merge([shard], self.store)
            except RequestError as error:
                self.notes.append(str(error))
                continue
            merged |= statuses
            under_way += claimed
        names = by_task(self.tasks, merged)
        points = [point for point in job.content.points if cell_id(point) not in names]
        ours = {cell_id(point): self.tasks[cell_id(point)] for point in points}
        for identity in under_way:
            self.strikes.update(list(by_task(ours, {identity: Status.KILLED})))
        job.set_merged()
        return list(names), points, bool(merged or under_way)

    def _may_try_again(self, job: Job, state: str, missing: list[Point], began: bool) -> bool:
        """Whether another job may take what this one has left; a note says why not."""
        if state == "CANCELLED":
            self.notes.append(f"job {job.id} was cancelled; its cells are left for another sweep")
            return False
        first = cell_id(missing[0])
        self._fruitless[first] += not began
        if self._fruitless[first] < MAX_FRUITLESS:
            self.notes.append(f"job {job.id} ended as {state}; another one goes on")
            return True
        log = last_line("\n".join(job.log_lines))
        why = f"its log ends: {log}" if log else f"no log came back: is {job.log.parent} shared?"
        self.notes.append(f"job {job.id} ended as {state} before its first cell; {why}")
        return False


def poll_seconds(previous: float, progressed: bool) -> float:
    """How long until the next look: sacct is for the whole cluster."""
    return POLL_S if progressed else min(MAX_POLL_S, 1.5 * previous)


def tail(job: Job, lines: int = 200) -> str:
    """The end of a job's log; Failure where there is none yet."""
    if not job.log_lines:
        raise Failure(f"job {job.id} has printed nothing yet: {job.log}")
    return "\n".join(job.log_lines[-lines:])
