"""Sweeps that run for real: resumed, interrupted, killed, shared, failing."""

import collections
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.probe.workers.test_worker import is_there, seconds_until_gone
from tests.small import small_model
from workbench.probe.workers.client import Client, Worker
from workbench.store import Store
from workbench.sweep.plan import plan
from workbench.sweep.run import dry_run, run_sweep
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Record, Status
from workbench.vocabulary.sweep import Grid, Sweep

NUM_CELLS = 90
QUICK = Protocol(min_samples=1, precision=None, max_seconds=1.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_model("mistral", tmp_path_factory.mktemp("models"))


def small(model: str, *sizes: int, **fields: object) -> Grid:
    """Measured on the CPU: milliseconds a cell, once a worker is warm."""
    changes = {"device": "cpu", "dtypes": ("float32",), "protocol": QUICK, **fields}
    return Grid(models=(model,), visual=sizes, **changes)


def predicted(model: str, *sizes: int) -> Grid:
    return Grid(models=(model,), visual=sizes, source="predicted", device="h100-80gb")


def held(path: Path) -> list[tuple[str, Record]]:
    with Store.open(path) as store:
        return list(store.items())


def test_a_second_sweep_only_does_what_is_left(model: str, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    first = Sweep(name="s", grids=(small(model, 4, 8), predicted(model, 4, 8)))
    done = run_sweep(first, path, client=client)
    assert (done.num_cells, done.num_held, done.num_ran) == (4, 0, 4)
    assert done.counts == {"ok": 4}
    assert done.num_failed == 0
    more = first.replace(grids=(*first.grids, predicted(model, 16)))
    rows = dry_run(more, path, client=client)
    assert [row.held for row in rows.cells] == [True] * 4 + [False]
    assert all(row.seconds > 0 for row in rows.cells)
    assert rows.seconds == rows.wall_s == rows.cells[-1].seconds
    assert not any(row.held for row in dry_run(more, path, new_run=True, client=client).cells)
    assert len(held(path)) == 4
    again = run_sweep(more, path, client=client)
    assert (again.run, again.num_held, again.num_ran) == (done.run, 4, 1)
    assert {run for run, _ in held(path)} == {done.run}
    nothing = run_sweep(more, path, client=Untouchable())
    assert (nothing.run, nothing.num_held, nothing.num_ran) == (done.run, 5, 0)
    other = run_sweep(more, path, new_run=True, client=client)
    assert other.run != done.run
    assert len(held(path)) == 10


def test_a_sweep_keeps_a_summary_of_each_trace(model: str, client: Client, tmp_path: Path) -> None:
    path, folder = tmp_path / "s.db", tmp_path / "traces"
    folder.mkdir()
    sweep = Sweep(name="s", grids=(small(model, 4, 8), predicted(model, 4)))
    assert run_sweep(sweep, path, client=client, trace=folder).counts == {"ok": 3}
    found = {
        record.details["trace"]["file"]
        for _, record in held(path)
        if record.source == "measured" and record.details["trace"]["parts"]
    }
    assert found == {file.name for file in folder.iterdir()}
    assert len(found) == 2


class Untouchable(Client):
    """Fails where a worker is started for nothing."""

    @property
    def worker(self) -> Worker:
        raise AssertionError("nothing is left to run")


def test_what_did_not_end_is_tried_again(
    model: str, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.db"
    hurried = QUICK.model_copy(update={"timeout_s": 0.001})
    first = Sweep(name="s", grids=(small(model, 8, protocol=hurried),))
    done = run_sweep(first, path, client=client)
    assert done.counts == {"timeout": 1}
    assert done.num_failed == 1
    assert "timeout, no answer within 0.001 s" in capsys.readouterr().err
    again = run_sweep(Sweep(name="s", grids=(small(model, 8),)), path, client=client)
    assert (again.run, again.num_held, again.num_ran) == (done.run, 0, 1)
    assert again.counts == {"ok": 1}
    assert [record.status for _, record in held(path)] == [Status.OK]


@pytest.mark.parametrize("fields", [{"models": ("nope",)}, {"attentions": ("dattn",)}])
def test_names_are_checked_before_anything_runs(
    fields: dict[str, tuple[str]], model: str, client: Client, tmp_path: Path
) -> None:
    sweep = Sweep(name="s", grids=(small(model, 4), Grid(visual=(4,), **fields)))
    with pytest.raises(RequestError, match="is unknown"):
        run_sweep(sweep, tmp_path / "s.db", client=client)
    assert list(tmp_path.iterdir()) == []


def test_a_claim_of_a_sweep_that_died_does_not_hold_its_cell(
    model: str, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "s.db"
    done = run_sweep(Sweep(name="s", grids=(predicted(model, 8),)), path, client=client)
    sweep = Sweep(name="s", grids=(predicted(model, 4),))
    identity = plan(sweep)[0].identity
    claim = (
        "import sys\nfrom workbench.store import Store\n"
        "with Store.open(sys.argv[1], 'w') as s:\n"
        "    assert s.claim(sys.argv[2], tuple(sys.argv[3:]))\n"
    )
    words = [str(path), str(done.run), *identity]
    subprocess.run([sys.executable, "-c", claim, *words], check=True)
    assert run_sweep(sweep, path, client=client).counts == {"ok": 1}


def spec(folder: Path, model: str, num_cells: int) -> Path:
    """A sweep whose cells take a moment each."""
    path = folder / "spec.yaml"
    sizes = list(range(64, 64 + num_cells))
    path.write_text(
        f"models: {model}\nvisual: {sizes}\ndevice: cpu\ndtypes: float32\n"
        "protocol: {min_samples: 20, precision: null}\n"
    )
    return path


def start(path: Path, store: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", "sweep", str(path), "--store", str(store), *more],
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores interrupts, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(store: Path, num_records: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if store.exists() and len(held(store)) >= num_records:
            return
        time.sleep(0.05)
    raise AssertionError(f"{store} never held {num_records} records")


def descendants(pid: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(stat[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [below for child in found for below in descendants(child)]


@pytest.mark.slow
def test_killed_then_interrupted_then_two_at_once(model: str, tmp_path: Path) -> None:
    """One sweep's life: nothing lost, nothing twice, and nobody left behind."""
    store, path = tmp_path / "s.db", spec(tmp_path, model, NUM_CELLS)

    killed = start(path, store)
    wait_for(store, 2)
    workers = descendants(killed.pid)
    assert len(workers) >= 2
    killed.kill()
    killed.communicate()
    assert seconds_until_gone(workers, 5.0) < 1.0
    before = {record.cell.key for _, record in held(store)}

    interrupted = start(path, store, "--workers", "1")
    wait_for(store, len(before) + 2)
    workers = descendants(interrupted.pid)
    interrupted.send_signal(signal.SIGINT)
    _, err = interrupted.communicate(timeout=30)
    assert interrupted.returncode == 130
    assert "Traceback" not in err
    again = f"To go on: workbench sweep {path} --store {store} --workers 1\n"
    assert f"interrupted; what ran is stored. {again}" in err
    assert not any(map(is_there, workers))
    kept = {record.cell.key for _, record in held(store)}
    assert before < kept
    assert len(kept) < NUM_CELLS

    both = [start(path, store) for _ in range(2)]
    said = [process.communicate(timeout=240)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    cells = collections.Counter((run, record.cell.key) for run, record in held(store))
    assert len(cells) == NUM_CELLS
    assert set(cells.values()) == {1}
    assert kept <= {key for _, key in cells}
    ran = [sum(": ok, " in line for line in err.splitlines()) for err in said]
    assert sum(ran) == NUM_CELLS - len(kept)
    with Store.open(store) as opened:
        assert opened.check() == []


def test_a_sweep_s_own_minutes_drop_cells_and_say_so(
    model: str, client: Client, tmp_path: Path
) -> None:
    path, hurried = tmp_path / "s.db", 1e-6
    sweep = Sweep(name="s", grids=(predicted(model, 4), small(model, 4, 8)), max_minutes=hurried)
    done = run_sweep(sweep, path, client=client)
    assert (done.num_ran, len(done.dropped), done.unbegun) == (0, 3, [])
    with Store.open(path) as store:
        ((_, note),) = store.notes().items()
    assert note.tags == ("out of minutes",)
    assert "minutes had no room for 3 cells" in note.text
    # A finished sweep stays finished, until it is given minutes.
    again = run_sweep(sweep, path, client=Untouchable())
    assert (again.run, again.num_ran, again.dropped) == (done.run, 0, done.dropped)
    short = run_sweep(sweep, path, client=client, max_minutes=hurried)
    assert (short.run, len(short.unbegun), short.dropped) == (done.run, 3, [])
    first = run_sweep(sweep, path, client=client, max_minutes=10, source="predicted")
    assert (first.run, first.num_cells, first.num_ran) == (done.run, 1, 1)
    rest = run_sweep(sweep, path, client=client, max_minutes=10)
    assert (rest.run, rest.num_held, rest.num_ran, rest.unbegun) == (done.run, 1, 2, [])
    with Store.open(path) as store:
        assert store.notes() == {}


def test_a_source_that_a_sweep_lacks_is_refused(model: str, tmp_path: Path) -> None:
    sweep = Sweep(name="s", grids=(predicted(model, 4),))
    with pytest.raises(RequestError, match="source measured: no cell of sweep s is measured"):
        run_sweep(sweep, tmp_path / "s.db", client=Untouchable(), source="measured")
    assert list(tmp_path.iterdir()) == []
