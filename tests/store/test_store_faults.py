"""What a store survives: killed writers, a full disk, a read-only folder, damage, company."""

import ctypes
import itertools
import multiprocessing
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from workbench.store import Store, StoreError
from workbench.store.claims import this_process
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Environment, Record, Status

FORK = multiprocessing.get_context("fork")
ENV = Environment(host="here")
NOBODY = 65534


def record(num_visual: int, num_samples: int = 3, status: str = "ok") -> Record:
    return Record(
        cell=make_cell(num_visual=num_visual),
        source="measured",
        device="cpu",
        status=status,
        metrics={"time_s": 0.5},
        samples={"time_s": [num_visual + i / 7 for i in range(num_samples)]},
    )


def begin(path: Path) -> str:
    with Store.open(path, "w") as store:
        return store.begin_run("demo", {}, ENV)


def kept(path: Path) -> list[int]:
    with Store.open(path) as store:
        assert store.check() == []
        return [found.cell.num_visual for found in store.records()]


def add_until_stopped(path: Path, first: int, num_samples: int, pipe: Any) -> None:
    """Add rows one by one, report each that ``add`` acknowledged, end with the error if any."""
    with Store.open(path, "w") as store:
        run = store.begin_run("demo", {}, ENV)
        for i in range(first, first + 10_000):
            try:
                store.add(run, record(i, num_samples))
            except StoreError as error:
                pipe.send(str(error))
                return
            pipe.send(i)


def received(pipe: Any) -> Iterator[Any]:
    while pipe.poll():
        try:
            yield pipe.recv()
        except EOFError:
            return


def test_a_writer_killed_at_any_moment_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path, chance, acknowledged = tmp_path / "s.db", random.Random(11), []
    attempts = itertools.count()
    # A busy machine writes few rows before each kill.
    while (attempt := next(attempts)) < 20 or (len(acknowledged) <= 20 and attempt < 100):
        here, there = FORK.Pipe(duplex=False)
        child = FORK.Process(target=add_until_stopped, args=(path, attempt * 10_000, 3000, there))
        child.start()
        there.close()
        time.sleep(chance.uniform(0.0, 0.12))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        acknowledged += received(here)
        rows = kept(path) if path.exists() else []
        assert set(acknowledged) <= set(rows)
        assert len(rows) == len(set(rows)) <= len(acknowledged) + attempt + 1
    assert len(acknowledged) > 20
    with Store.open(path) as store:
        assert len(store.runs()) == 1


def cut_off_a_commit(path: Path) -> None:
    """Die with half of a large transaction in the file and the original pages in its journal."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE records SET details = hex(randomblob(30000)), flags = 'torn'")
    os.kill(os.getpid(), signal.SIGKILL)


def torn(path: Path) -> None:
    with Store.open(path, "w") as store:
        run = store.begin_run("demo", {}, ENV)
        store.add_many(run, [record(i) for i in range(50)])
    child = FORK.Process(target=cut_off_a_commit, args=(path,))
    child.start()
    child.join()
    assert Path(f"{path}-journal").stat().st_size > 0
    assert b"torn" in path.read_bytes()


def test_reading_undoes_a_commit_that_was_cut_off(tmp_path: Path) -> None:
    torn(tmp_path / "s.db")
    assert kept(tmp_path / "s.db") == list(range(50))


@contextmanager
def read_only_folder() -> Iterator[Path]:
    """A folder and files in it that this process cannot write, root or not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            yield folder
        finally:
            os.seteuid(os.getuid())
            folder.chmod(0o755)


def lock_down(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    if os.getuid() == 0:
        os.seteuid(NOBODY)


def test_a_read_only_folder_can_be_read_and_says_why_it_cannot_be_written() -> None:
    with read_only_folder() as folder:
        begin(folder / "s.db")
        lock_down(folder)
        assert kept(folder / "s.db") == []
        with pytest.raises(StoreError, match="read-only"):
            Store.open(folder / "new.db", "w")
        with (
            Store.open(folder / "s.db", "w") as store,
            pytest.raises(StoreError, match="read-only"),
        ):
            store.begin_run("demo", {}, ENV)


def test_a_cut_off_commit_in_a_read_only_folder_is_explained() -> None:
    with read_only_folder() as folder:
        torn(folder / "s.db")
        lock_down(folder)
        with pytest.raises(RequestError, match="writable folder"):
            Store.open(folder / "s.db")


def small_tmpfs(folder: Path) -> bool:
    """Mount 300 KB of memory on ``folder`` where this process may."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.mount(b"none", bytes(folder), b"tmpfs", 0, b"size=300k") == 0


@pytest.fixture(params=["tmpfs", "file size limit"])
def full_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Callable]]:
    """A folder with little space, and what a writer calls first where mounting is refused."""
    if request.param == "tmpfs" and small_tmpfs(tmp_path):
        yield tmp_path, lambda: None
        ctypes.CDLL(None).umount(bytes(tmp_path))
    else:
        yield tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_a_full_disk_keeps_what_was_acknowledged(full_disk: tuple[Path, Callable]) -> None:
    folder, limit = full_disk
    path = folder / "s.db"
    begin(path)
    here, there = FORK.Pipe(duplex=False)

    def fill() -> None:
        limit()
        add_until_stopped(path, 0, 200, there)

    child = FORK.Process(target=fill)
    child.start()
    child.join(60)
    *acknowledged, message = received(here)
    assert "disk full" in message
    assert "intact" in message
    assert "\n" not in message
    assert len(acknowledged) > 10
    assert kept(path) == acknowledged


def claim_and_add(path: Path, run: str, start: Any, pipe: Any) -> None:
    mine = []
    start.wait()
    with Store.open(path, "w") as store:
        for i in range(25):
            cell = record(i)
            if store.claim(run, (cell.cell.key, "measured", "cpu")):
                mine.append(i)
                store.add(run, cell)
    pipe.send(mine)


def test_two_sweeps_on_one_store_do_each_cell_once(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run, start = begin(path), FORK.Barrier(3)
    pipes = [FORK.Pipe(duplex=False) for _ in range(3)]
    children = [FORK.Process(target=claim_and_add, args=(path, run, start, p[1])) for p in pipes]
    for child in children:
        child.start()
    done = [pipe[0].recv() for pipe in pipes]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert sorted(i for part in done for i in part) == list(range(25))
    assert sorted(kept(path)) == list(range(25))


def begin_at_once(path: Path, start: Any, pipe: Any) -> None:
    start.wait()
    pipe.send(begin(path))


def test_two_sweeps_that_create_one_store_share_its_run(tmp_path: Path) -> None:
    path, start = tmp_path / "s.db", FORK.Barrier(4)
    pipes = [FORK.Pipe(duplex=False) for _ in range(4)]
    for pipe in pipes:
        FORK.Process(target=begin_at_once, args=(path, start, pipe[1])).start()
    assert len({pipe[0].recv() for pipe in pipes}) == 1


def add_slowly(path: Path) -> None:
    with Store.open(path, "w") as store:
        run = store.begin_run("demo", {}, ENV)
        for i in range(40):
            store.add(run, record(i))
            time.sleep(0.02)


def test_readers_and_a_writer_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, counts = tmp_path / "s.db", []
    begin(path)
    with Store.open(path) as store:
        assert store.frame().empty
    child = FORK.Process(target=add_slowly, args=(path,))
    child.start()
    while child.is_alive():
        with Store.open(path) as store:
            counts.append(len(store.frame()))
    child.join()
    assert child.exitcode == 0
    assert counts == sorted(counts)
    assert len(counts) > 3
    assert kept(path) == list(range(40))


def claim_and_wait(path: Path, run: str, pipe: Any) -> None:
    with Store.open(path, "w") as store:
        pipe.send(store.claim(run, ("k", "measured", "cpu")))
        time.sleep(60)


def test_the_claim_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run, cell = begin(path), ("k", "measured", "cpu")
    here, there = FORK.Pipe(duplex=False)
    child = FORK.Process(target=claim_and_wait, args=(path, run, there))
    child.start()
    assert here.recv()
    with Store.open(path, "w") as store:
        assert not store.claim(run, cell)
        store.release(run, cell)
        assert not store.claim(run, cell)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert store.claim(run, cell)
        assert store.claim(run, cell)


def test_a_claim_elsewhere_lasts_for_its_lease(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run, cell = begin(path), ("k", "measured", "cpu")
    elsewhere = this_process()._replace(host="node7")
    with Store.open(path, "w") as store:
        assert store.claim(run, cell, 0.2, elsewhere)
        assert not store.claim(run, cell)
        time.sleep(0.25)
        assert store.claim(run, cell)
        store.release(run, cell)
        assert store.claim(run, cell, 100.0, elsewhere)
        with sqlite3.connect(path) as clock_was_set_back:
            clock_was_set_back.execute(
                "UPDATE claims SET claimed_at = 9e9, expires_at = 9e9 + 100"
            )
        assert store.claim(run, cell)


def test_a_holder_that_is_seen_to_live_keeps_its_claim_whatever_the_clock_says(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.db"
    run, cell = begin(path), ("k", "measured", "cpu")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    holder = this_process()._replace(pid=child.pid, started=stat[19])
    assert holder.is_alive()
    with Store.open(path, "w") as store:
        assert store.claim(run, cell, 0.01, holder)
        time.sleep(0.05)
        assert not store.claim(run, cell)
        with sqlite3.connect(path) as clock_was_set_back:
            clock_was_set_back.execute(
                "UPDATE claims SET claimed_at = 9e9, expires_at = 9e9 + 100"
            )
        assert not store.claim(run, cell)
        child.kill()
        child.wait()
        assert not holder.is_alive()
        assert store.claim(run, cell)


def test_an_owner_is_not_confused_with_a_later_process_of_its_number() -> None:
    me = this_process()
    assert not me.is_dead()
    assert me._replace(started="1").is_dead()
    assert me._replace(boot="before").is_dead()
    assert me._replace(pid=2**22 + 1).is_dead()
    assert not me._replace(namespace="pid:[1]", started="1").is_dead()
    assert not me._replace(host="node7", boot="other").is_dead()


def test_a_finished_cell_cannot_be_claimed_and_an_unfinished_one_can(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.db", "w") as store:
        run = store.begin_run("demo", {}, ENV)
        for i, status in enumerate(Status):
            identity = (record(i).cell.key, "measured", "cpu")
            assert store.claim(run, identity)
            store.add(run, record(i, status=status.value))
            assert store.claim(run, identity) is not status.done


def test_any_damage_is_reported_in_one_line_or_harmless(tmp_path: Path) -> None:
    path, chance, reported = tmp_path / "s.db", random.Random(5), []
    with Store.open(path, "w") as store:
        run = store.begin_run("demo", {}, ENV)
        store.add_many(run, [record(i, 50) for i in range(100)])
    sound = path.read_bytes()
    for _ in range(60):
        data = bytearray(sound)
        if chance.random() < 0.3:
            del data[chance.randrange(1, len(data)) :]
        else:
            at = chance.randrange(len(data))
            data[at : at + 300] = chance.randbytes(len(data[at : at + 300]))
        path.write_bytes(data)
        try:
            with Store.open(path) as store:
                store.runs()
                store.frame()
                store.records()
        except RequestError as error:
            reported.append(str(error))
    assert len(reported) > 30
    assert not any("\n" in line for line in reported)


def test_a_damaged_store_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store.open(path, "w") as store:
        run = store.begin_run("demo", {}, ENV)
        store.add_many(run, [record(i, 500) for i in range(50)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(RequestError, match=r"damaged.*workbench merge"):
        Store.open(path, "w")
    assert path.read_bytes() == data[: len(data) // 2]


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.runs(),
        lambda store: store.frame(),
        lambda store: list(store.items()),
        lambda store: store.begin_run("s", {}, ENV),
    ],
)
def test_a_closed_store_is_one_line(tmp_path: Path, ask: Callable[[Store], object]) -> None:
    path = tmp_path / "a.db"
    with Store.open(path, "w") as store:
        pass
    with pytest.raises(StoreError) as raised:
        ask(store)
    assert str(raised.value) == f"store {str(path)!r}: is closed; open it again"


def test_a_store_of_another_thread_is_one_line(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db", "w") as store, ThreadPoolExecutor(1) as other:
        with pytest.raises(StoreError, match="another thread opened it, and it serves that one"):
            other.submit(store.runs).result()
        assert store.runs() == []
