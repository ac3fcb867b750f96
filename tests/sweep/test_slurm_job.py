"""What a job goes on with where an earlier start of it ended, on a node of another kind too."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small import small_model
from workbench.store import Store
from workbench.store.claims import Owner
from workbench.sweep.engines.slurm_folder import Job, JobFile, begin, cell_id, wanted_run
from workbench.sweep.engines.slurm_job import by_task, run_job
from workbench.sweep.plan import CellId, Task, place_elsewhere
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Environment, Record, Status
from workbench.vocabulary.sweep import Grid, Point, Sweep

ELSEWHERE = "NVIDIA A100-SXM4-80GB"


@pytest.fixture(autouse=True)
def _own_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def job_of(folder: Path, num_cells: int) -> Job:
    quick = Protocol(min_samples=1, precision=None)
    grid = Grid(
        models=(small_model("mistral", folder),),
        visual=tuple(range(4, 4 + num_cells)),
        dtypes=("float32",),
        protocol=quick,
    )
    sweep = Sweep(name="s", grids=(grid,))
    run = begin(folder, wanted_run(sweep, "mixed", 1, ()))
    return run.add([JobFile(points=tuple(sweep.points()))], 60).jobs[0]


def name_of(point: Point, device: str = ELSEWHERE) -> CellId:
    return point.cell.key, point.source, device


def earlier(
    job: Job, start: str, ended: dict[Point, Status], under_way: tuple[Point, ...] = ()
) -> None:
    """What a start on a node with an A100 left."""
    run = job.batch.folder.parent.name
    path = job.batch.folder / f"{job.number}.{start}.part.db"
    with Store.open(path, "w") as store:
        store.begin_run("s", {}, Environment(gpu=ELSEWHERE), run_id=run)
        for point, status in ended.items():
            store.add(
                run,
                Record(
                    cell=point.cell,
                    source="measured",
                    device=ELSEWHERE,
                    status=status,
                    started_at="2026-01-01T00:00:00+00:00",
                ),
            )
        for point in under_way:
            assert store.claim(run, name_of(point))


def shard(job: Job) -> list[Record]:
    (path,) = job.batch.folder.glob("*.5-2.db")
    with Store.open(path) as store:
        return store.records()


def test_a_cell_that_another_kind_of_gpu_ran_is_not_run_again(tmp_path: Path) -> None:
    job = job_of(tmp_path, 4)
    first, second, third, fourth = job.content.points
    earlier(job, "5-0", {first: Status.OK, second: Status.OOM}, (third,))
    earlier(job, "5-1", {}, (third,))
    run_job(job, Status.KILLED, "5-2")
    found = {record.cell.num_visual: record for record in shard(job)}
    assert {size: str(record.status) for size, record in found.items()} == {
        third.cell.num_visual: "killed",
        fourth.cell.num_visual: "ok",
    }
    assert found[third.cell.num_visual].error == "its job ended while it ran, 2 times"
    assert {record.device for record in found.values()} == {"cpu"}


def test_of_two_kinds_of_gpus_the_one_that_ran_it_counts(tmp_path: Path) -> None:
    (point,) = job_of(tmp_path, 1).content.points
    tasks = {cell_id(point): Task(point, *place_elsewhere(point.source, point.device))}
    killed, done = (name_of(point), Status.KILLED), (name_of(point, "cpu"), Status.OK)
    for found in (dict([killed, done]), dict([done, killed])):
        assert by_task(tasks, found) == {cell_id(point): Status.OK}
    assert by_task(tasks, dict([killed])) == {cell_id(point): Status.KILLED}


def test_two_processes_of_one_job_share_its_cells(tmp_path: Path) -> None:
    """As with several tasks a node: what one holds or has ended, the other leaves alone."""
    job = job_of(tmp_path, 3)
    first, second, third = job.content.points
    run, path = job.batch.folder.parent.name, job.batch.folder / f"{job.number}.5-2.part.db"
    with Store.open(path, "w") as store:
        store.begin_run("s", {}, Environment(), run_id=run)
        store.add(
            run,
            Record(
                cell=first.cell,
                source="measured",
                device="cpu",
                status=Status.OK,
                started_at="2026-01-01T00:00:00+00:00",
            ),
        )
        mate = Owner("elsewhere", "boot", "pid:[1]", 1, "1")
        assert store.claim(run, name_of(second, "cpu"), owner=mate)
    run_job(job, Status.KILLED, "5-2")
    with Store.open(path) as store:
        assert [record.cell.num_visual for record in store.records()] == [
            first.cell.num_visual,
            third.cell.num_visual,
        ]
        assert store.claimed(run) == [name_of(second, "cpu")]
