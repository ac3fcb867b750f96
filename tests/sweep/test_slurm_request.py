"""What is asked of Slurm, where it can be judged without one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small import small_model
from workbench.sweep.engines.slurm_check import (
    Request,
    check,
    check_name,
    check_place,
    check_shared,
    file_system,
    pairs,
)
from workbench.sweep.engines.slurm_cluster import Cluster, Node, minutes
from workbench.sweep.engines.slurm_folder import (
    BatchFile,
    JobFile,
    begin,
    cell_id,
    locked,
    newest,
    runs,
    wanted_run,
)
from workbench.sweep.engines.slurm_job import is_same
from workbench.sweep.plan import plan
from workbench.vocabulary.errors import Failure, RequestError
from workbench.vocabulary.sweep import Grid, Point, Sweep

SWEEP = Sweep(name="s", grids=(Grid(visual=(4, 8), device="cpu"),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("5:30", 6),
        ("1:30:00", 90),
        ("0:00:30", 1),
        ("2-0", 2880),
        ("1-12:30", 2190),
        ("1-00:00:00", 1440),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "1h", "-5", "1:2:3:4", "infinite", "1;rm -r"])
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="minutes, HH:MM:SS or D-HH:MM:SS"):
        minutes(text)


def test_further_options_of_sbatch_are_names_and_values() -> None:
    assert pairs(["account=vision", "--mem-per-cpu=2G"]) == {
        "account": "vision",
        "mem-per-cpu": "2G",
    }


@pytest.mark.parametrize(
    "word", ["account", "=x", "A b=c", "partition=gpu", "x=1\n#SBATCH --y=2", "x=1\r", "x=\x1b[2J"]
)
def test_further_options_that_cannot_be(word: str) -> None:
    with pytest.raises(RequestError, match="sbatch '"):
        pairs([word])


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("nodes=2", "a job is one process on one node"),
        ("--ntasks=4", "a job is one process on one node"),
        ("ntasks-per-node=2", "a job is one process on one node"),
        ("gpus-per-task=1", "a job is one process on one node"),
        ("ntask=4", "may mean ntasks: a job is one process"),
        ("n=4", "may mean no-requeue"),
        ("signal=USR1@90", "the engine says it itself"),
        ("sig=USR1@90", "may mean signal: the engine says it itself"),
        ("output=/tmp/x", "the engine says it itself"),
        ("error=/tmp/x", "the engine says it itself"),
        ("requeue=1", "the engine says it itself"),
        ("no-requeue=1", "the engine says it itself"),
        ("wrap=touch x", "the engine says it itself"),
        ("wra=touch x", "may mean wrap"),
        ("job-name=x", "the engine says it itself"),
        ("open-mode=truncate", "the engine says it itself"),
        ("clusters=other", "the engine says it itself"),
        ("chdir=/tmp", "the engine says it itself"),
        ("array=0-3", "say it with --workers"),
        ("tim=5", "may mean time: say it with --time"),
    ],
)
def test_what_the_engine_says_itself_or_would_run_a_job_twice_is_refused(
    word: str, says: str
) -> None:
    with pytest.raises(RequestError, match=f"sbatch '.*': {re.escape(says)}"):
        pairs([word])


def test_an_option_is_given_once_and_others_of_the_cluster_pass() -> None:
    words = ["qos=high", "exclude=n1", "mem=8G", "container-image=x", "nodelist=n2", "export=ALL"]
    assert list(pairs(words)) == [word.partition("=")[0] for word in words]
    with pytest.raises(RequestError, match="qos is given twice"):
        pairs(["qos=a", "qos=b"])


@pytest.mark.parametrize(
    "name", ["a\nb", "a\x1b[2Jb", "a\tb", "100%j", 'a"b', "a\\b", "a`b", "$HOME", "\udc80"]
)
def test_a_folder_that_no_script_can_name_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="a job's script cannot name it") as caught:
        check_name(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()
    check_name(tmp_path / "a b, ü (1)")


def test_a_disk_of_this_machine_is_not_shared(tmp_path: Path) -> None:
    far = Cluster("main", (Node("elsewhere", {"": 2}),))
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(check_place(Path("/dev/shm/not/there"))) == "tmpfs"
    with pytest.raises(RequestError, match=r"disk of this machine \(tmpfs\), which elsewhere"):
        check_shared(Path("/dev/shm"), far)
    check_shared(tmp_path, Cluster("main", (Node(os.uname().nodename, {"": 2}),)))


def test_slurm_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match=r"sbatch, srun, .* not on PATH.*--engine local"):
        check(Request(), tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--engine", "slurmm"), "engine 'slurmm' is unknown; did you mean slurm? known: local"),
        (("--partition", "gpu"), "partition gpu: is for --engine slurm"),
        (("--engine", "slurm"), "sbatch, srun, sinfo, sacct, scontrol not on PATH"),
        (("--workers", "0"), "workers 0: at least 1 is needed"),
    ],
)
def test_a_wrong_request_leaves_nothing_behind(
    tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    spec = tmp_path / "s.yaml"
    model = small_model("mistral", tmp_path / "models")
    spec.write_text(json.dumps({"models": model, "visual": 4, "device": "cpu"}))
    done = subprocess.run(
        [sys.executable, "-m", "workbench.cli", "sweep", str(spec), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"s.yaml", "models"}


def test_a_run_is_continued_where_all_agrees(tmp_path: Path) -> None:
    wanted = wanted_run(SWEEP, "gpu", 1, ())
    assert newest(tmp_path, wanted) is None
    run = begin(tmp_path, wanted)
    again = newest(tmp_path, wanted_run(SWEEP, "gpu", 1, ()))
    assert again is not None
    assert again.file == run.file
    for other in (("cpu", 1, ()), ("gpu", 2, ()), ("gpu", 1, ("abc",))):
        assert newest(tmp_path, wanted_run(SWEEP, *other)) is None


def test_batches_are_written_before_they_are_submitted(tmp_path: Path) -> None:
    points = tuple(SWEEP.points())
    run = begin(tmp_path, wanted_run(SWEEP, "gpu", 1, ()))
    strikes = {cell_id(points[0]): 1}
    batch = run.add([JobFile(points=points[:1], strikes=strikes), JobFile(points=points[1:])], 5)
    (found,) = run.batches
    assert found.file.jobs is None
    assert [job.content.points for job in found.jobs] == [points[:1], points[1:]]
    assert found.jobs[0].content.strikes == strikes
    batch.set_jobs(["7_0", "7_1"])
    assert [job.id for job in run.batches[0].jobs] == ["7_0", "7_1"]
    assert run.add([JobFile(points=points)], 5).folder.name == "001"


ABSURD = {
    "name": "wb-1",
    "submitted_at": "2026-01-01T00:00:00",
    "num_jobs": 1,
    "minutes": 1,
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"name": "../x", "num_jobs": -1}',
        "\x80",
        "[" * 100_000,
        *(
            json.dumps({**ABSURD, **change})
            for change in (
                {"num_jobs": 10**30},
                {"minutes": 10**400},
                {"submitted_at": "9999-99-99T99:99:99"},
                {"name": "x\n#SBATCH --uid=0"},
                {"jobs": ["7; rm -r x"]},
                {"more": 1},
            )
        ),
    ],
)
def test_a_stranger_s_folder_is_refused(tmp_path: Path, text: str) -> None:
    run = begin(tmp_path, wanted_run(SWEEP, "gpu", 1, ()))
    batch = run.add([JobFile(points=tuple(SWEEP.points()))], 5)
    (batch.folder / "batch.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RequestError, match="not the file of a sweep under Slurm"):
        _ = run.batches
    (run.folder / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RequestError, match="not the file of a sweep under Slurm"):
        runs(tmp_path)


@pytest.mark.parametrize("job", ["7; rm -r x", "../7", "7_0\n8", ""])
def test_a_job_s_id_is_one(job: str) -> None:
    with pytest.raises(ValueError, match="jobs"):
        BatchFile(
            name="wb-1", submitted_at="2026-01-01T00:00:00", num_jobs=1, minutes=1, jobs=(job,)
        )


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    run = begin(tmp_path, wanted_run(SWEEP, "gpu", 1, ()))
    batch = run.add([JobFile(points=tuple(SWEEP.points()))], 5)
    (job,) = batch.jobs
    batch.set_jobs(["7"])
    os.mkfifo(batch.folder / "0.7-0.done")
    os.mkfifo(job.log)
    assert (job.num_done, job.log_lines) == (0, [])
    (batch.folder / "batch.json").unlink()
    (batch.folder / "batch.json").symlink_to("/dev/zero")
    with pytest.raises(RequestError, match="not a regular file"):
        _ = run.batches
    (run.folder / "run.json").unlink()
    os.mkfifo(run.folder / "run.json")
    with pytest.raises(RequestError, match="not a regular file"):
        runs(tmp_path)


def test_a_stranger_s_grid_is_not_multiplied_out(tmp_path: Path) -> None:
    run = begin(tmp_path, wanted_run(SWEEP, "gpu", 1, ()))
    document = json.loads((run.folder / "run.json").read_text())
    axis = list(range(1, 10_001))
    document["sweep"]["grids"] = [dict.fromkeys(("visual", "text", "batches"), axis)]
    (run.folder / "run.json").write_text(json.dumps(document))
    (found,) = runs(tmp_path)
    assert found.file.sweep.name == "s"


def test_the_end_of_a_long_log_is_enough(tmp_path: Path) -> None:
    run = begin(tmp_path, wanted_run(SWEEP, "gpu", 1, ()))
    batch = run.add([JobFile(points=tuple(SWEEP.points()))], 5)
    batch.set_jobs(["7"])
    (job,) = batch.jobs
    with job.log.open("wb") as file:
        file.truncate(2**33)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert job.log_lines[-1] == "the end"


def test_one_coordinator_at_a_time(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(Failure, match="another sweep is at work"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


def test_a_gpu_has_any_name_until_a_record_says_it() -> None:
    def task(device: str, source: str = "measured"):  # type: ignore[no-untyped-def]
        grid = Grid(visual=(4,), device=device, source=source)  # type: ignore[arg-type]
        (found,) = plan(Sweep(name="s", grids=(grid,)), here=False)
        return found

    key = task("cpu").identity[0]
    assert is_same(task("cuda"), (key, "measured", "NVIDIA H200"))
    assert not is_same(task("cuda"), (key, "measured", "cpu"))
    assert is_same(task("cpu"), (key, "measured", "cpu"))
    assert not is_same(task("cpu"), (key, "measured", "NVIDIA H200"))
    assert is_same(task("auto"), (key, "measured", "cpu"))
    assert is_same(task("h100-80gb", "predicted"), (key, "predicted", "h100-80gb"))
    assert not is_same(task("h100-80gb", "predicted"), (key, "predicted", "a100-80gb"))
    assert not is_same(task("cuda"), ("0" * 16, "measured", "NVIDIA H200"))
    with pytest.raises(RequestError, match="auto, cpu, cuda"):
        task("tpu")
    assert isinstance(task("cpu").point, Point)
