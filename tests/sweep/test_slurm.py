"""Sweeps as jobs of a real Slurm: killed, timed out, taken over, and every cell once."""

import collections
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing
from tests.small import small_model
from workbench.store import Store
from workbench.sweep.engines.slurm_folder import Batch, Run, cell_id, runs

pytestmark = pytest.mark.slurm
NUM_CELLS = 24
LIMIT_S = 300.0


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
    """24 cells that take about half a second each, whatever the machine."""
    model = small_model("mistral", folder)
    sizes = list(range(64, 64 + NUM_CELLS // 2))
    protocol = {"min_samples": 10_000, "precision": None, "max_seconds": 0.4}
    document = {
        "models": model, "visual": sizes, "attentions": ["s_attn", "d_attn"], "device": "cpu",
        "dtypes": "float32", "protocol": protocol, **changes,
    }  # fmt: skip
    path = folder / "spec.yaml"
    path.write_text(json.dumps(document))
    return path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "workbench.cli", *words]


def start(cluster: Cluster, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command("sweep", *words, "--engine", "slurm", "--gpus-per-task", "1", "--time", "1"),
        env={**os.environ, **cluster.variables}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


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
            cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")


def step(cluster: Cluster, job: str) -> list[int]:
    """The processes of the step that srun started in a job."""
    (number,) = cluster.run("squeue", "--noheader", f"--jobs={job}", "--format=%A").stdout.split()
    listed = cluster.run("scontrol", "listpids", number).stdout.splitlines()[1:]
    return [int(row.split()[0]) for row in listed if row.split()[2] == "0"]


def worker(pids: list[int]) -> int | None:
    """The worker among them, which is the child of its guard."""
    found = {}
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if b"workbench.probe.workers.worker" in words:
            found[pid] = int(stat[1])
    return next((pid for pid, parent in found.items() if parent in found), None)


def until(ready: Callable[[], bool], coordinator: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + LIMIT_S
    while not ready():
        assert coordinator.poll() is None, coordinator.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_a_killed_job_a_time_out_and_a_killed_coordinator(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Of two jobs one is killed in its work, and one hangs until its time is over."""
    store, folder = tmp_path / "s.db", tmp_path / "s.jobs"
    words = (str(spec(tmp_path)), "--store", str(store))
    first = start(cluster, *words)
    until(lambda: any(batch.file.jobs for batch in batches(folder)), first)
    killed, hangs = batches(folder)[0].jobs
    assert killed.id is not None
    assert hangs.id is not None

    def stopped() -> bool:
        pid = worker(step(cluster, str(hangs.id)))
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
        return pid is not None

    # By then both have measured their ceilings: a worker that hangs there is given up sooner.
    until(lambda: hangs.num_done > 0, first)
    until(stopped, first)
    until(lambda: killed.num_done > 0, first)
    pids = step(cluster, killed.id)
    assert len(pids) >= 3
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    first.kill()
    first.communicate()

    again = start(cluster, *words)
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
    # The kill shows as a second batch, the time-out as a start after the first; or it came before
    # its warning was heard, and then a later batch has what it left.
    first_batch, *later = found.batches
    assert later
    assert not list(folder.glob("*/000/0.*-1.*"))
    moved = {cell_id(p) for batch in later for job in batch.jobs for p in job.content.points}
    timed_out = {cell_id(p) for p in first_batch.jobs[1].content.points}
    assert list(folder.glob("*/000/1.*-1.db")) or moved & timed_out
    assert (
        "gpu" in cluster.run("sacct", "--noheader", "--allocations", "--format=ReqTRES%80").stdout
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--partition", "nope"), "partition 'nope' is unknown; known: far, main"),
        (("--gpus-per-task", "3"), "gpus_per_task 3: no node of partition 'main' has more than 2"),
        (("--time", "2:00:00"), "time 120 min: partition 'main' lets a job run for 60 min"),
        (("--time", "soon"), "time 'soon': minutes, HH:MM:SS or D-HH:MM:SS"),
        (("--sbatch", "constraint=nope"), "--constraint=nope: Invalid feature specification"),
        (("--workers", "0"), "workers 0: at least 1 is needed"),
        (("--partition", "far"), "is on a disk of this machine"),
        (("--gpus-per-task", "0", "--json"), "gpus_per_task 0: the sweep measures on cuda"),
    ],
)
def test_what_the_cluster_lacks_is_refused_before_anything_is_submitted(
    words: tuple[str, ...], says: str, cluster: Cluster, tmp_path: Path
) -> None:
    jobs = cluster.run("sacct", "--noheader", "--allocations").stdout
    folder = Path(f"/dev/shm/{tmp_path.name}")
    done = subprocess.run(
        command("sweep", str(spec(tmp_path, device="cuda")), "--engine", "slurm", *words,
                "--folder", str(folder)),
        cwd=tmp_path, env={**os.environ, **cluster.variables}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not folder.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"spec.yaml", "mistral"}
    assert cluster.run("sacct", "--noheader", "--allocations").stdout == jobs
