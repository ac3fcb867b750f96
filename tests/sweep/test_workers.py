"""Several workers on one machine: who gets what, and a real sweep that they share."""

import threading
import time
from pathlib import Path

import pytest

from tests.probe.fake_nvml import FakeNvml
from tests.small import small_model
from workbench.child import Interrupted
from workbench.probe.machine.environment import num_threads
from workbench.probe.machine.nvml import Nvml
from workbench.probe.workers.client import Client
from workbench.probe.workers.seat import WHOLE_MACHINE, Seat
from workbench.store import Store
from workbench.sweep.plan import Task
from workbench.sweep.run import dry_run, run_sweep
from workbench.sweep.workers import seats
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status
from workbench.vocabulary.sweep import Grid, Point, Sweep

TOGETHER: dict[str, object] = {"world_size": 2, "scope": "decoder", "pass": "train"}
CARDS = Nvml(FakeNvml(["NVIDIA H200", "NVIDIA H200"]))


@pytest.fixture(autouse=True)
def _order_of_the_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where cards differ, only CUDA itself knows its own order."""
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def task(device: str, source: str = "measured", **fields: object) -> Task:
    cell = Cell(num_visual=4, **fields)  # type: ignore[arg-type]
    return Task(Point(cell=cell, source=source, device=device), device, device)  # type: ignore[arg-type]


def test_one_worker_has_the_machine_to_itself() -> None:
    assert seats([task("cpu")]) == seats([], 1) == [WHOLE_MACHINE]
    assert WHOLE_MACHINE.variables == {}


def test_workers_on_the_cpu_share_its_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert seats([task("cpu")], 3) == [Seat(None, 2, 1 / 3)] * 3
    assert seats([task("cpu")], 20) == [Seat(None, 1, 1 / 20)] * 20
    assert Seat(threads=2).environment("cpu").num_threads == 2
    assert WHOLE_MACHINE.environment("cpu").num_threads == 8


def test_predictions_alone_have_a_worker_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    predicted = [task("h100-80gb", "predicted")] * 72
    assert seats(predicted) == [Seat(share=1 / 3)] * 3
    assert seats(predicted[:40]) == [WHOLE_MACHINE]
    assert len(seats(predicted * 9)) == 4
    assert len(seats(predicted, 2)) == 2
    assert seats([*predicted, task("cpu")]) == [WHOLE_MACHINE]
    # Their run goes on whatever the number of workers.
    assert seats(predicted)[0].environment("cpu") == WHOLE_MACHINE.environment("cpu")


@pytest.mark.parametrize(
    ("visible", "words"), [(None, ["0", "1"]), ("1,0", ["1", "0"]), ("GPU-11, 0", ["GPU-11", "0"])]
)
def test_a_worker_a_gpu(
    visible: str | None, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = seats([task("cuda"), task("h100-80gb", "predicted")], None, CARDS)
    assert [seat.variables for seat in found] == [{"CUDA_VISIBLE_DEVICES": w} for w in words]
    mixed = seats([task("cuda"), task("cpu")], 2, CARDS)
    assert {seat.threads for seat in mixed} == {max(1, num_threads() // 2)}


@pytest.mark.parametrize(
    ("tasks", "asked", "cards", "says"),
    [
        ([task("cpu")], 0, CARDS, "workers 0: at least 1"),
        ([task("cuda")], 3, CARDS, "workers 3: each needs a GPU of its own.*sees 2 GPUs"),
        ([task("cuda:1")], 2, CARDS, "the sweep names cuda:1"),
        ([task("cuda", world_size=2)], None, CARDS, "world_size 2: only a train pass"),
        ([task("cuda:1", **TOGETHER)], None, CARDS, "2 ranks take a GPU each; say cuda"),
        ([task("cuda", **TOGETHER)], 2, CARDS, "cells of 2 ranks, which take a GPU each"),
        ([task("cuda")], 2, Nvml(FakeNvml(["A", "B"])), r"the GPUs differ \(A, B\)"),
    ],
)
def test_workers_that_cannot_be(tasks: list[Task], asked: int, cards: Nvml, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        seats(tasks, asked, cards)


def test_cells_of_several_ranks_get_one_worker_with_every_gpu() -> None:
    assert seats([task("cuda"), task("cuda", **TOGETHER)], None, CARDS) == [WHOLE_MACHINE]
    assert len(seats([task("cpu", **TOGETHER)], 2)) == 2


def test_a_gpu_that_is_named_or_differs_gets_one_worker() -> None:
    assert seats([task("cuda:1")], None, CARDS) == [WHOLE_MACHINE]
    assert seats([task("cuda")], None, Nvml(FakeNvml(["A", "B"]))) == [WHOLE_MACHINE]


def test_an_interrupt_ends_the_wait_and_the_worker() -> None:
    client = Client()
    worker = client.worker
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            client.run(Point(cell=Cell(num_visual=8192), source="measured", device="cpu"))
        except Interrupted as error:
            seen.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    client.interrupt()
    thread.join(10)
    assert [type(error) for error in seen] == [Interrupted]
    assert not Path(f"/proc/{worker.pid}").exists()


def test_two_workers_run_each_cell_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    model, path = small_model("mistral", tmp_path), tmp_path / "s.db"
    quick = Protocol(min_samples=1, precision=None, max_seconds=1.0)
    common = {"models": (model,), "dtypes": ("float32",), "protocol": quick}
    sizes = (4, 4096, 8, 16, 32, 2048)
    sweep = Sweep(name="s", grids=(Grid(device="cpu", visual=sizes, **common),))
    forecast = dry_run(sweep, path, workers=2)
    assert forecast.workers == 2
    assert forecast.seconds / 2 <= forecast.wall_s < forecast.seconds
    done = run_sweep(sweep, path, workers=2)
    assert (done.num_ran, done.counts, done.num_workers) == (6, {"ok": 6}, 2)
    said = capsys.readouterr().err
    assert said.startswith("2 workers, 1 thread each\n")
    with Store.open(path) as store:
        (run,) = store.runs()
        records = store.records()
    assert {record.environment.num_threads for record in records} == {1}
    assert run.environment.num_threads == 1
    assert all(record.status is Status.OK for record in records)
    began = {record.cell.num_visual: record.started_at for record in records}
    assert began[4096] == min(began.values())
    again = run_sweep(sweep, path, workers=2)
    assert (again.run, again.num_ran) == (done.run, 0)
