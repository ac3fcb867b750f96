"""The worker and everything that can happen to it, caused for real."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.small import small_model
from workbench.probe.machine.environment import total_memory_bytes
from workbench.probe.machine.memory_limit import host_limit
from workbench.probe.workers.client import Client, WorkerError, cause
from workbench.probe.workers.guard import GRACE_S
from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Record, Status
from workbench.vocabulary.sweep import Point, make_point

MISTRAL = make_cell(num_visual=4096, dtype="float32")


def point(cell: Cell, source: str = "measured", **protocol: object) -> Point:
    fields = {"min_samples": 2, "precision": None, "max_seconds": 5.0, **protocol}
    device = "cpu" if source == "measured" else "h100-80gb"
    return make_point(cell=cell, source=source, device=device, protocol=fields)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    model = small_model("mistral", tmp_path_factory.mktemp("models"))
    return make_cell(model=model, num_visual=8, num_text=4, dtype="float32")


@pytest.fixture(scope="module")
def slow(tiny: Cell) -> Cell:
    """Minutes of work, in operations of seconds."""
    return tiny.replace(num_visual=40_000)


def is_there(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def seconds_until_gone(pids: list[int], at_most: float) -> float:
    start = time.monotonic()
    while any(map(is_there, pids)) and time.monotonic() - start < at_most:
        time.sleep(0.01)
    return time.monotonic() - start


def when_busy(pid: int, act: object) -> threading.Thread:
    """Call ``act`` once the process has worked for half a second of processor time."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11])

    def watch() -> None:
        start = ticks()
        while ticks() - start < os.sysconf("SC_CLK_TCK") / 2:
            time.sleep(0.02)
        act()  # type: ignore[operator]

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_one_worker_serves_many_cells(client: Client, tiny: Cell) -> None:
    pid = client.worker.pid
    measured = client.run(point(tiny))
    predicted = client.run(point(tiny, "predicted"))
    capped = client.run(point(make_cell(num_visual=10**6), "predicted"))
    soft = make_cell(model="gemma-2-9b", num_visual=4, num_text=4)
    refused = client.run(point(soft))
    assert [r.status for r in (measured, predicted, capped, refused)] == [
        Status.OK,
        Status.OK,
        Status.OOM,
        Status.UNSUPPORTED,
    ]
    assert measured.device == "cpu"
    assert predicted.device == "h100-80gb"
    assert len(measured.samples["time_s"]) == 2
    assert measured.metrics["flops"] == predicted.metrics["flops"]
    assert client.worker.pid == pid
    assert Record.from_document(measured.document()) == measured
    # The profiler of the memory pass announces itself on file descriptor 1, which is not ours.
    assert any("profiler" in line for line in client.worker.stderr)


def test_unknown_names_are_requests_that_are_wrong(client: Client, tiny: Cell) -> None:
    pid = client.worker.pid
    client.check([tiny, make_cell(num_visual=3)])
    for field, value in (("model", "mistal-7b"), ("attention", "dattn"), ("kernel", "flashy")):
        with pytest.raises(RequestError, match=f"{value}.* is unknown"):
            client.check([make_cell(num_visual=3, **{field: value})])
    with pytest.raises(RequestError, match=r"'h1000' is unknown; did you mean h100-80gb"):
        client.check([make_cell(num_visual=3, memory_cap="h1000")])
    with pytest.raises(RequestError, match="num_visual 3: scope lvlm makes 729 tokens an image"):
        client.check([make_cell(num_visual=3, scope="lvlm")])
    with pytest.raises(RequestError, match="'dattn' is unknown"):
        client.run(point(make_cell(num_visual=3, attention="dattn")))
    assert client.worker.pid == pid


def test_an_estimate_is_one_number_a_point(client: Client, tiny: Cell) -> None:
    sizes = (8, 64, 4096)
    points = [point(MISTRAL.replace(num_visual=size)) for size in sizes]
    unfit = point(MISTRAL, memory_limit=10**9)
    asked = [*points, unfit, point(tiny, "predicted")]
    *measured, short, predicted = client.estimate([(p, p.device) for p in asked])
    assert measured == sorted(measured)
    assert measured[2] > 10 * measured[1]
    assert short < measured[2] / 3
    assert 0 < predicted < measured[2]


def test_killed_from_outside_is_killed_and_the_next_cell_runs(
    client: Client, tiny: Cell, slow: Cell
) -> None:
    pid = client.worker.pid
    killer = when_busy(pid, lambda: os.kill(pid, signal.SIGKILL))
    record = client.run(point(slow, max_seconds=100))
    killer.join()
    assert record.status is Status.KILLED
    assert record.flags[0] == "killed: the worker was ended from outside by SIGKILL"
    assert record.device == "cpu"
    assert record.environment.python
    assert record.duration_s is not None
    assert client.run(point(tiny)).status is Status.OK
    assert client.worker.pid != pid


def test_a_hang_is_a_timeout_and_ends_the_process(client: Client, tiny: Cell) -> None:
    pid = client.worker.pid
    os.kill(pid, signal.SIGSTOP)
    record = client.run(point(tiny, timeout_s=0.5))
    assert record.status is Status.TIMEOUT
    assert record.flags == ["timeout: no answer within 0.5 s"]
    assert not is_there(pid)


def test_memory_refused_is_an_oom(client: Client, tiny: Cell) -> None:
    pid = client.worker.pid
    eager = tiny.replace(kernel="eager", num_visual=8192)
    record = client.run(point(eager, memory_limit=256 * 2**20))
    assert record.status is Status.OOM
    assert "allocate" in (record.error or "")
    said = "memory_limit: the worker could allocate 268,435,456 bytes of host memory"
    assert said in record.flags
    assert record.metrics["flops"]
    assert not is_there(pid)


def test_the_lowest_limit_counts() -> None:
    capped = MISTRAL.replace(memory_cap=3 * 10**9)
    assert host_limit(point(capped), "cpu") == 3 * 10**9
    assert host_limit(point(capped, memory_limit=10**9), "cpu") == 10**9
    free = host_limit(point(MISTRAL, memory_limit=10**15), "cpu")
    assert free is not None
    assert free < total_memory_bytes()
    assert host_limit(point(capped), "cuda:0") is None
    assert host_limit(point(capped, "predicted"), "cpu") is None


COORDINATOR = """
import json, sys
from workbench.probe.workers.client import Client
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.sweep import make_point
with Client() as client:
    print(client.worker.pid, flush=True)
    for _ in range(100):
        client.run(make_point(cell=make_cell(**json.loads(sys.argv[1])), source="measured",
                              device="cpu"))
"""


def coordinator(cell: Cell) -> tuple["subprocess.Popen[str]", list[int]]:
    """A process that runs slow cells, and the processes that its worker consists of."""
    process = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, json.dumps(cell.document())],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    guard = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    assert guard not in (1, process.pid)
    return process, [worker, guard]


def test_the_worker_is_gone_with_its_coordinator(slow: Cell) -> None:
    process, pids = coordinator(slow)
    when_busy(pids[0], process.kill).join()
    process.wait()
    assert seconds_until_gone(pids, 5.0) < 1.0


def test_a_stopped_guard_keeps_nothing_running(slow: Cell) -> None:
    process, pids = coordinator(slow)
    os.kill(pids[1], signal.SIGSTOP)
    when_busy(pids[0], process.kill).join()
    process.wait()
    assert seconds_until_gone(pids, 20.0) < GRACE_S + 5


@pytest.mark.parametrize("kills", [1, 2])
def test_a_guard_that_is_killed_as_it_starts_is_tried_again(
    tiny: Cell, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, real = [kills], subprocess.Popen

    def doomed(*words: object, **options: object) -> "subprocess.Popen[bytes]":
        process = real(*words, **options)  # type: ignore[call-overload]
        if left[0]:
            left[0] -= 1
            process.kill()
        return process  # type: ignore[no-any-return]

    monkeypatch.setattr("workbench.child.subprocess.Popen", doomed)
    with Client() as client:
        record = client.run(point(tiny))
        assert left == [0]
        if kills == 1:
            assert record.status is Status.OK
            return
        assert record.status is Status.KILLED
        assert record.error == (
            "the worker was ended from outside by SIGKILL while it started, twice"
        )
        assert client.run(point(tiny)).status is Status.OK


GUARDED = """
import os, subprocess, sys, time
from workbench.probe.workers.guard import fork_under_guard
fork_under_guard()
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
near = subprocess.Popen(sleep)
far = subprocess.Popen(sleep, start_new_session=True)
print(os.getpid(), near.pid, far.pid, flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("time.sleep(60)", -signal.SIGKILL),  # until its input ends
        ("os.kill(os.getpid(), 19); time.sleep(60)", -signal.SIGKILL),  # stopped, even
        ("os._exit(3)", 3),
        ("os.kill(os.getpid(), 6)", -signal.SIGABRT),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ],
)
def test_no_grandchild_is_left(then: str, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", GUARDED.format(then=then)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    if "sleep" in then:
        process.stdin.close()
    assert process.wait(10) == code
    assert not any(map(is_there, pids))


FAULT = """
import torch.nn.functional as F

def fails(*_, **__):
    raise RuntimeError("CUDA error:\\nillegal access")

F.scaled_dot_product_attention = fails
"""


def test_a_fault_in_a_cell_is_a_row_and_a_cuda_fault_has_a_second_try(
    tiny: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAULT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Client() as client:
        record = client.run(point(tiny))
    assert record.status is Status.ERROR
    assert record.error == "RuntimeError: CUDA error: illegal access"
    assert "in fails" in "".join(record.details["traceback"])
    assert record.flags[-1] == "retried: the first try ended in a CUDA fault"


@pytest.mark.parametrize(
    ("code", "stderr", "limit", "expected"),
    [
        (-signal.SIGABRT, ["terminate: std::bad_alloc"], 1, Status.OOM),
        (-signal.SIGABRT, ["terminate: std::bad_alloc"], None, Status.ERROR),
        (-signal.SIGABRT, ["pure virtual method called"], 1, Status.ERROR),
        (-signal.SIGSEGV, [], 1, Status.ERROR),
        (-signal.SIGKILL, ["std::bad_alloc"], 1, Status.KILLED),
        (-signal.SIGTERM, [], 1, Status.KILLED),
        (1, ["libgomp: Thread creation failed: Resource unavailable"], 1, Status.OOM),
        (7, [], 1, Status.ERROR),
    ],
)
def test_what_an_end_means(
    code: int, stderr: list[str], limit: int | None, expected: Status
) -> None:
    status, reason = cause(code, stderr, limit)
    assert status is expected
    assert signal.Signals(-code).name in reason if code < 0 else str(code) in reason


def test_a_worker_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkerError, match=r"cannot start: ImportError: libcudart.so is missing"):
        _ = Client().worker
