"""How the jobs of a sweep are: by the queue, and by the accounting where that has forgotten."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from workbench.sweep.engines.slurm_cluster import ask
from workbench.sweep.engines.slurm_folder import BatchFile, Job
from workbench.vocabulary.errors import Failure

if TYPE_CHECKING:
    from submitit.slurm.slurm import SlurmInfoWatcher

ALIVE = {
    "COMPLETING",
    "CONFIGURING",
    "PENDING",
    "READY",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESIZING",
    "RUNNING",
    "SIGNALING",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
    "UNKNOWN",
}


class State(NamedTuple):
    """How a job is, in Slurm's words, and the nodes that it has or had."""

    word: str = "UNKNOWN"
    nodes: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self.word in ALIVE


class States:
    """How jobs are, by one call of squeue for all of them, and of sacct for those it forgot."""

    def __init__(self) -> None:
        from submitit.slurm.slurm import SlurmJob

        self._watcher: SlurmInfoWatcher = SlurmJob.watcher
        self._seen: set[str] = set()

    def look(self, jobs: Iterable[Job]) -> dict[str, State]:
        """The state of each job by its id."""
        batches = {job.id: job.batch.file for job in jobs if job.id is not None}
        try:
            queued = _queue({file.name for file in batches.values()}) if batches else {}
            is_silent = False
        except Failure:  # the accounting may answer all the same
            queued, is_silent = {}, True
        states = {job: queued[job] for job in batches if job in queued}
        forgotten = batches.keys() - queued.keys()
        self._watcher.clear()
        for job in forgotten:
            self._watcher.register_job(job)
        if forgotten:
            self._watcher.update()
        for job in forgotten:
            states[job] = self._accounted(job)
            if (
                states[job] == State()
                and not is_silent
                and self._was_known(job, batches[job], queued)
            ):
                states[job] = State("CANCELLED")
        self._seen |= {job for job, state in states.items() if state != State()}
        return states

    def _was_known(self, job: str, batch: BatchFile, queued: dict[str, State]) -> bool:
        """Whether Slurm has had a job that it knows nothing of any more, as others of its array.

        The accounting never hears of a task that was cancelled before it began.
        """
        siblings = batch.jobs or ()
        accounted = (each in queued or self._accounted(each) != State() for each in siblings)
        return job in self._seen or any(accounted)

    def _accounted(self, job: str) -> State:
        info = self._watcher.get_info(job, mode="cache")
        words, nodes = info.get("State", "").split(), info.get("NodeList", "")
        return State(words[0], "" if nodes == "None assigned" else nodes) if words else State()


def _queue(names: set[str]) -> dict[str, State]:
    """What Slurm itself still knows: what has not ended, and for some minutes what has."""
    form = ("--noheader", "--array", "--states=all", "--format=%i|%T|%N")
    listing = ask("squeue", *form, f"--name={','.join(sorted(names))}")
    rows = (line.strip().split("|") for line in listing.splitlines())
    return {job: State(word, nodes) for job, word, nodes in rows}
