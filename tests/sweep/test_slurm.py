"""Sweeps as jobs of a real Slurm: killed, timed out, taken over, and every cell once."""

import collections
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.slurm.cluster import SECOND, Cluster, missing, parent, processes
from tests.small import small_model
from workbench.cli import main
from workbench.store import Store
from workbench.sweep.engines.slurm_folder import Batch, Job, Run, runs

pytestmark = pytest.mark.slurm
NUM_CELLS = 24
LIMIT_S = 400.0
MINUTES = 5
"""Of a job: room for a machine on which a start alone takes a minute or more."""
WARNING_S = 60
"""What a job of that limit asks Slurm for, and begins its end with."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if missing():
        pytest.skip(f"no Slurm here: {', '.join(missing())} are missing")
    opened = Cluster(tmp_path_factory.mktemp("slurm"))
    opened.up()
    try:
        yield opened
    finally:
        opened.down()


def spec(folder: Path, **changes: object) -> Path:
    """24 cells that take over half a second each, whatever the machine."""
    model = small_model("mistral", folder)
    sizes = list(range(64, 64 + NUM_CELLS // 2))
    protocol = {"min_samples": 10_000, "precision": None, "max_seconds": 0.5}
    document = {
        "models": model,
        "visual": sizes,
        "attentions": ["s_attn", "d_attn"],
        "device": "cpu",
        "dtypes": "float32",
        "protocol": protocol,
        **changes,
    }
    path = folder / "spec.yaml"
    path.write_text(json.dumps(document))
    return path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "workbench.cli", *words]


def start(cluster: Cluster, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command("sweep", *words, "--engine", "slurm", "--time", str(MINUTES)),
        env={**os.environ, **cluster.variables},
        stderr=subprocess.PIPE,
        text=True,
    )


def the_run(folder: Path) -> Run | None:
    found = runs(folder) if folder.is_dir() else []
    return found[0] if found else None


def batches(folder: Path) -> list[Batch]:
    run = the_run(folder)
    return [] if run is None else run.batches


def hurry(cluster: Cluster) -> None:
    """Slurm holds a requeued job back for two minutes; nobody has to wait for that here."""
    for line in cluster.run("squeue", "--noheader", "--format=%i %r").stdout.splitlines():
        job, _, reason = line.partition(" ")
        if reason == "BeginTime":
            changes = ("StartTime=now", f"TimeLimit={MINUTES}")
            cluster.run("scontrol", "update", f"JobId={job}", *changes)


def step(job: Job) -> list[int]:
    """The processes of the step that srun started in a job of an array."""
    array, _, number = str(job.id).partition("_")
    named = {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": number, "SLURM_STEP_ID": "0"}
    return list(processes(**named))


def worker(pids: list[int]) -> int | None:
    """The worker among them, which is the child of its guard."""
    found = []
    for pid in pids:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found += [pid] if b"workbench.probe.workers.worker" in words else []
    return next((pid for pid in found if parent(pid) in found), None)


def until(ready: Callable[[], bool], coordinator: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + LIMIT_S
    while not ready():
        assert coordinator.poll() is None, coordinator.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def hold_all(jobs: list[Job], coordinator: "subprocess.Popen[str]") -> None:
    """Stop the worker of each once a cell has ended: none is done before all are on their way.

    By then a job has measured its ceilings, too: a worker that hangs there is given up sooner.
    """
    held = set[str | None]()
    deadline = time.monotonic() + LIMIT_S
    while len(held) < len(jobs):
        assert coordinator.poll() is None, coordinator.communicate()[1]
        assert time.monotonic() < deadline
        for job in jobs:
            pid = worker(step(job)) if job.id not in held and job.num_done else None
            if pid is not None:
                os.kill(pid, signal.SIGSTOP)
                held.add(job.id)
        time.sleep(0.1)


def shown(cluster: Cluster, store: Path) -> dict[str, tuple[str, int]]:
    """State and number of starts of each job, as ``workbench jobs`` has them."""
    done = subprocess.run(
        command("jobs", "--store", str(store), "--json"),
        env={**os.environ, **cluster.variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return {row["job"]: (row["state"], row["starts"]) for row in json.loads(done.stdout)}


def ends(cluster: Cluster, job: Job) -> set[str]:
    """How the starts of a job ended, in Slurm's words."""
    words = ("--noheader", "--allocations", "--duplicates", "--parsable2", "--format=State")
    return set(cluster.run("sacct", *words, f"--jobs={job.id}").stdout.split())


@pytest.mark.slow
def test_a_killed_job_a_time_out_a_lost_node_and_a_killed_coordinator(
    cluster: Cluster, tmp_path: Path
) -> None:
    """One job is killed in its work, one hangs until its time is over, the node of one dies.

    A fourth is cancelled before it has begun. The partition mixes two kinds of GPUs. Every cell is
    run to its end once.
    """
    store, folder = tmp_path / "s.db", tmp_path / "s.jobs"
    words = (str(spec(tmp_path)), "--store", str(store), "--partition", "mixed")
    words += ("--gpus-per-task", "1")
    first = start(cluster, *words, "--workers", "4")
    until(lambda: any(batch.file.jobs for batch in batches(folder)), first)
    *jobs, waits = batches(folder)[0].jobs
    hold_all(jobs, first)
    assert shown(cluster, store) == {
        **{job.id: ("RUNNING", 1) for job in jobs},
        waits.id: ("PENDING", 0),
    }
    cluster.run("scancel", str(waits.id))
    # The queue forgets it at once; the accounting knows of it a moment later.
    until(lambda: shown(cluster, store).get(waits.id) == ("CANCELLED", 0), first)
    there = set(processes(SLURMD_NODENAME=SECOND))
    (lost,) = (job for job in jobs if there & set(step(job)))
    killed, hangs = (job for job in jobs if job is not lost)
    assert len(step(killed)) >= 3
    for pid in step(killed):
        os.kill(pid, signal.SIGKILL)
    cluster.lose(SECOND)
    # Its limit comes nearer, so that nobody waits for minutes: Slurm announces the end at least
    # WARNING_S before, when it next looks, which it does every 30 s.
    cluster.run("scontrol", "update", f"JobId={hangs.id}", f"EndTime=now+{WARNING_S + 25}")
    first.kill()
    said = first.communicate()[1]
    assert "partition 'mixed' has a100 and h100 GPUs" in said

    again = start(cluster, *words, "--workers", "1")
    deadline = time.monotonic() + LIMIT_S
    while again.poll() is None and time.monotonic() < deadline:
        hurry(cluster)
        time.sleep(0.5)
    again.terminate()
    said = again.communicate()[1]
    assert again.returncode == 0, said
    assert "jobs of an earlier call have not ended" in said

    with Store.open(store) as opened:
        (run,) = opened.runs()
        records = opened.records()
        assert opened.check() == []
    assert collections.Counter(record.status for record in records) == {"ok": NUM_CELLS}
    assert len({record.cell.key for record in records}) == NUM_CELLS
    found = the_run(folder)
    assert found is not None
    assert run.id == found.file.run
    ran = [line for note in folder.glob("*/*/*.done") for line in note.read_text().splitlines()]
    assert len(ran) == len(set(ran)) == NUM_CELLS

    # Kill and cancellation show as a second batch, time-out and lost node as starts after the
    # first.
    moved = {p for batch in found.batches[1:] for job in batch.jobs for p in job.content.points}
    left = moved - set(waits.content.points)
    assert moved - left == set(waits.content.points)
    assert left
    assert left < set(killed.content.points)
    assert {job.number for job in jobs if list(folder.glob(f"*/000/{job.number}.*-1.*"))} == {
        hangs.number,
        lost.number,
    }
    assert ends(cluster, killed) == {"FAILED"}
    assert ends(cluster, hangs) == {"REQUEUED", "COMPLETED"}
    assert ends(cluster, lost) == {"NODE_FAIL", "COMPLETED"}
    assert "SIGUSR2" in hangs.log.read_text()
    asked = cluster.run("sacct", "--noheader", "--allocations", "--format=ReqTRES%80").stdout
    assert "gpu" in asked


def refused(capsys: pytest.CaptureFixture[str], says: str, spec: Path, *words: str) -> None:
    """The request is refused in one line."""
    with pytest.raises(SystemExit) as leaving:
        main(["sweep", str(spec), "--engine", "slurm", *words])
    found = capsys.readouterr()
    assert says in found.err
    assert (leaving.value.code, found.out, found.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--partition", "nope"), "partition 'nope' is unknown; known: far, main, mixed"),
        (("--partition=-x\n#SBATCH --uid=0",), "partition '-x\\n#SBATCH --uid=0' is unknown"),
        (("--gpus-per-task", "3"), "gpus_per_task 3: no node of partition 'main' has more than 2"),
        (("--gpu-type", "a100"), "gpu_type 'a100': partition 'main' has h100"),
        (("--gpu-type", "a100", "--partition", "mixed", "--gpus-per-task", "2"), "than 1 a100"),
        (("--cpus-per-task", "999"), "Requested node configuration is not available"),
        (("--time", "2:00:00"), "time 120 min: partition 'main' lets a job run for 60 min"),
        (("--time", "soon"), "time 'soon': minutes, HH:MM:SS or D-HH:MM:SS"),
        (("--sbatch", "constraint=nope"), "--constraint=nope: Invalid feature specification"),
        (("--sbatch", "nonsense=1"), "sbatch: unrecognized option '--nonsense=1'"),
        (("--sbatch", "ntasks=2"), "a job is one process on one node"),
        (("--folder", "jobs\n#SBATCH --uid=0"), "a job's script cannot name it"),
        (("--workers", "0"), "workers 0: at least 1 is needed"),
        (("--workers", "5000"), "workers 5000: an array of this cluster has at most 1001 jobs"),
        (("--partition", "far"), "is on a disk of this machine"),
        (("--gpus-per-task", "0", "--json"), "gpus_per_task 0: the sweep measures on cuda"),
        (("--folder", "spec.yaml"), "spec.yaml is a file"),
        (("--folder", "spec.yaml/jobs", "--dry-run"), "spec.yaml is a file"),
        (("--folder", "x" * 300), "File name too long"),
        (("--store", "spec.yaml", "--gpus-per-task", "1"), "not a store"),
    ],
)
def test_what_the_cluster_lacks_is_refused_before_anything_is_submitted(
    words: tuple[str, ...],
    says: str,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = cluster.run("sacct", "--noheader", "--allocations").stdout
    path = spec(tmp_path, device="auto" if "--store" in words else "cuda")
    folder = Path(f"/dev/shm/{tmp_path.name}")
    monkeypatch.chdir(tmp_path)
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    refused(capsys, says, path, "--folder", str(folder), *words)
    assert not folder.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"spec.yaml", "mistral"}
    assert cluster.run("sacct", "--noheader", "--allocations").stdout == jobs
