"""Cells of several ranks from a sweep: real ranks in a worker, and what they die of."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.probe.fake_nvml import FakeNvml
from tests.probe.ranks.test_ranks import needs_helper
from tests.small import small_model
from workbench.probe.machine import environment
from workbench.probe.machine.launch import check_start
from workbench.probe.machine.nvml import Nvml
from workbench.probe.ranks.helper import lock_file
from workbench.probe.ranks.local import measure_together
from workbench.probe.workers.client import Client
from workbench.store import Store
from workbench.sweep.run import run_sweep
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Record, Status
from workbench.vocabulary.sweep import Grid, Point, Sweep

STEP = {"scope": "decoder", "pass": "train", "num_text": 15, "dtype": "float32"}
HOST = {"zero": 2, "offload_optimizer": True}
"""One process under deepspeed, which keeps master weights of float32 cells too."""


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    model = small_model("mistral", tmp_path_factory.mktemp("model"))
    return make_cell(**STEP, model=model, num_visual=33, zero=2, world_size=2)


def of_ranks(cell: Cell) -> dict[int, int]:
    """The process of each rank that trains the cell's model.

    A child that a rank has just forked still has its command and its variables: left out.
    """
    ranks, parents = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            command, variables = ((folder / n).read_bytes() for n in ("cmdline", "environ"))
            request = Path(command.split(b"\0")[-2].decode()) / "request.json"
            if b"workbench.probe.ranks.local" in command and cell.model in request.read_text():
                named = dict(v.split(b"=", 1) for v in variables.split(b"\0") if b"=" in v)
                status = (folder / "status").read_text()
                ranks[int(folder.name)] = int(named[b"LOCAL_RANK"])
                parents[int(folder.name)] = int(status.partition("PPid:")[2].split()[0])
        except (OSError, IndexError, KeyError):
            continue  # Not one of ours, or it ended while we looked.
    return {rank: pid for pid, rank in ranks.items() if parents.get(pid) not in ranks}


@needs_helper
def test_a_sweep_starts_the_ranks_of_its_cells(cell: Cell, tmp_path: Path) -> None:
    grid = Grid(
        models=(cell.model,),
        scopes=("decoder",),
        passes=("train",),
        dtypes=("float32",),
        text=(15,),
        visual=(33,),
        device="cpu",
        options=({}, {"world_size": 2, "zero": 2}, HOST),
        protocol=Protocol(min_samples=2, precision=None),
    )
    summary = run_sweep(Sweep(name="both", grids=(grid,)), tmp_path / "a.db")
    assert summary.counts == {"ok": 3}
    with Store.open(tmp_path / "a.db") as store:
        found = [record for _, record in store.items()]
    (host,) = (record for record in found if record.cell.offload_optimizer)
    records = {r.cell.world_size: r for r in found if r is not host}
    assert len(host.details["ranks"]) == 1
    assert host.metrics["optimizer_bytes"] > records[1].metrics["optimizer_bytes"]
    assert len(records[2].details["ranks"]) == 2
    assert records[2].metrics["communication_share"] > 0
    iterations = records[2].details["prepare"]["iterations_s"]
    assert len(iterations) == 4
    assert records[2].metrics["prepare_s"] == pytest.approx(sum(iterations))
    together, alone = (records[n].details["memory_limit_bytes"] for n in (2, 1))
    assert 0.4 < together / alone < 0.6


@needs_helper
def test_preparing_on_ranks_has_a_budget(cell: Cell, client: Client) -> None:
    protocol = Protocol(min_samples=2, precision=None, max_prepare=1e-6)
    record = client.run(Point(cell=cell, source="measured", device="cpu", protocol=protocol))
    assert record.status is Status.OK
    assert len(record.details["prepare"]["iterations_s"]) == 1
    assert record.metrics["prepare_s"] > 0
    assert record.metrics["num_samples"] == 0
    for metric in ("time_s", "peak_bytes", "weight_bytes", "optimizer_bytes"):
        assert record.metrics[metric] is None
        (flag,) = (flag for flag in record.flags if flag.startswith(f"{metric}: "))
        assert "no warm iteration: preparing took" in flag
    assert len(record.details["ranks"]) == 2


@needs_helper
def test_a_lock_that_a_killed_build_left_is_named(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock_file().touch()
    protocol = Protocol(min_samples=2, precision=None, max_prepare=0.5)
    point = Point(cell=cell, source="measured", device="cpu", protocol=protocol)
    with Client() as client:
        record = client.run(point)
    assert record.status is Status.ERROR
    assert f"left {tmp_path / 'deepspeed_shm_comm' / 'lock'}, which can" in str(record.error)


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
"""127.0.0.1, ::1, and the first as an address of IPv6, as /proc/net has them."""


def listening(pid: int) -> set[str]:
    """The addresses, as /proc/net has them, at which a process waits for connections."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
        except OSError:
            continue  # Closed while we looked.
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


@needs_helper
def test_ranks_of_one_machine_meet_on_its_loopback_alone(cell: Cell, client: Client) -> None:
    protocol = Protocol(min_samples=200, precision=None, max_seconds=3)
    point = Point(cell=cell, source="measured", device="cpu", protocol=protocol)
    found: list[Record] = []
    seen: dict[int, set[str]] = {}
    client.check([cell])
    worker = client.worker.pid
    thread = threading.Thread(target=lambda: found.append(client.run(point)))
    thread.start()
    while thread.is_alive():
        for pid in (worker, *of_ranks(cell).values()):
            try:
                seen.setdefault(pid, set()).update(listening(pid))
            except FileNotFoundError:
                continue  # It ended while we looked.
        time.sleep(0.2)
    thread.join()
    assert found[0].status is Status.OK
    assert len(seen) == 3
    assert seen[worker]
    assert set.union(*seen.values()) <= LOOPBACK


@needs_helper
@pytest.mark.parametrize(
    ("sent", "timeout_s", "status", "words"),
    [
        (signal.SIGKILL, 60.0, Status.KILLED, "rank 1 was ended from outside by SIGKILL"),
        (signal.SIGSTOP, 5.0, Status.TIMEOUT, "no answer within 5 s"),
    ],
)
def test_a_rank_that_is_gone_is_one_record_and_leaves_nobody(
    cell: Cell, client: Client, sent: signal.Signals, timeout_s: float, status: Status, words: str
) -> None:
    protocol = Protocol(timeout_s=timeout_s)
    point = Point(cell=cell, source="measured", device="cpu", protocol=protocol)
    found: list[Record] = []
    client.check([cell])
    thread = threading.Thread(target=lambda: found.append(client.run(point)))
    thread.start()
    while 1 not in (ranks := of_ranks(cell)):
        assert thread.is_alive()
        time.sleep(0.02)
    os.kill(ranks[1], sent)
    thread.join()
    assert [(record.status, record.error) for record in found] == [(status, words)]
    assert of_ranks(cell) == {}


def test_too_few_gpus_are_unsupported(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = environment.TorchBuild("2.13.0", "13.0")
    monkeypatch.setattr(environment, "torch_build", lambda: build)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    point = Point(cell=cell, source="measured", device="cuda")
    one = Nvml(FakeNvml(["NVIDIA H200"]))
    record = measure_together(point, "cuda", tmp_path, None, one)
    assert record.status is Status.UNSUPPORTED
    assert record.error == "world_size 2: this machine shows 1 GPU"
    assert record.device == "NVIDIA H200"
    with pytest.raises(RequestError, match=r"world_size 2: this machine shows 1 GPU; .* torchrun"):
        check_start(cell, "cuda", one)


def test_a_cell_that_no_ranks_can_run_starts_none(cell: Cell, tmp_path: Path) -> None:
    three = cell.replace(ulysses=3, world_size=3)
    point = Point(cell=three, source="measured", device="cpu")
    with pytest.raises(RequestError, match="ulysses 3: does not divide the 4 query heads"):
        measure_together(point, "cpu", tmp_path, None)
    assert list(tmp_path.iterdir()) == []
