"""What a hostile, damaged or changed store costs and says: bounded, one line, named as it is."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from workbench.store import Store, StoreError, guard, portion
from workbench.store.merge import merge
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Environment, Record

ENV = Environment(host="here")


def record(num_visual: int, num_samples: int = 3, **metrics: float) -> Record:
    return Record(
        cell=make_cell(num_visual=num_visual),
        source="measured",
        device="cpu",
        status="ok",
        metrics={"time_s": 0.5, **metrics},
        samples={"time_s": [0.5] * num_samples},
    )


def filled(path: Path, count: int, num_samples: int = 3, run: str = "r") -> Path:
    with Store.open(path, "w") as store:
        store.begin_run("demo", {}, ENV, run_id=run)
        store.add_many(run, [record(i, num_samples) for i in range(count)])
    return path


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def deleted(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    filled(path.with_name("other.db"), 1, run="other").replace(path)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (moved, "it was moved or deleted while it was open"),
        (deleted, "it was moved or deleted while it was open"),
        (replaced, "another file is in its place while it was open"),
        (emptied, "it was truncated while it was open"),
        (cut, "it was truncated while it was open"),
    ],
)
def test_what_became_of_the_file_during_a_sweep_is_named(
    change: Callable[[Path], None], says: str, tmp_path: Path
) -> None:
    path = filled(tmp_path / "s.db", 30)
    with Store.open(path, "w") as store:
        store.add("r", record(100))
        change(path)
        for write in (
            lambda: store.add("r", record(101)),
            lambda: store.claim("r", ("k", "measured", "cpu")),
            lambda: store.begin_run("demo", {}, ENV),
        ):
            with pytest.raises(StoreError, match=says) as caught:
                write()
            assert "every row acknowledged before is in the file that it was" in str(caught.value)
    if change is moved:
        with Store.open(tmp_path / "elsewhere.db") as store:
            assert len(store.records()) == 31
    if change is replaced:
        with Store.open(path) as store:
            assert [run.id for run in store.runs()] == ["other"]


def test_every_flipped_byte_is_damage_with_a_way_out_or_harmless(tmp_path: Path) -> None:
    """No byte ends in anything but rows, or the way to them; the fuzzer tries many more."""
    path = filled(tmp_path / "s.db", 40, 20)
    sound, chance, damage = path.read_bytes(), random.Random(7), 0
    places = [
        *range(16, 100, 2),
        *(chance.randrange(len(sound)) for _ in range(20)),
        *(chance.randrange(4096) for _ in range(20)),
    ]
    for at in places:
        data = bytearray(sound)
        data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        os.utime(path, ns=(at + 1, at + 1))
        try:
            with Store.open(path) as store:
                store.runs(), store.frame(), store.records(), store.notes(), store.units()
            continue
        except RequestError as error:
            line = str(error)
        damage += 1
        assert line.isprintable()
        if "schema version" in line and "newer" in line:
            continue  # The byte of the version itself.
        assert "workbench merge" in line, line
        if damage % 3:
            continue
        (tmp_path / "out.db").unlink(missing_ok=True)
        found = merge([path], tmp_path / "out.db")
        assert found.num_records >= 20, line
    assert damage > 10


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW v AS SELECT 1",
        "CREATE INDEX i ON records (abs(num_visual))",
        "CREATE TRIGGER t AFTER INSERT ON runs BEGIN SELECT 1; END",
        "DROP VIEW metrics",
        "ALTER TABLE runs ADD COLUMN more TEXT",
        "CREATE TABLE wide (" + ", ".join(f"c{i}" for i in range(500)) + ")",
        "CREATE TABLE deep (a CHECK (" + "1+" * 300 + "1" + "))",
    ],
)
def test_a_strange_schema_is_no_store(statement: str, tmp_path: Path) -> None:
    path = filled(tmp_path / "s.db", 3)
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    with pytest.raises(RequestError, match=r"damaged.*workbench merge"):
        Store.open(path)
    assert merge([path], tmp_path / "out.db").num_records == 3


def test_a_statement_has_as_many_steps_as_the_file_can_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "STEPS_FREE", 0)
    path = filled(tmp_path / "s.db", 3000)
    with Store.open(path) as store:
        assert len(store.frame()) == len(store.records()) == 3000
        assert store.check() == []
        assert not store.with_details(["trace", "timing"])
        endless = (
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        )
        with pytest.raises(RequestError, match="more steps than a store of its size"):
            store._rows(endless)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("metrics", '{"time_s": 1e308}'),
        ("metrics", '{"time_s": ' + "9" * 200 + "}"),
        ("metrics", '{"time_s": "' + "9" * 5000 + '"}'),
        ("metrics", '{"time_s": [1]}'),
        ("samples", '{"time_s": [1e308]}'),
        ("details", "[" * 5000),
        ("num_visual", -5),
        ("num_visual", 2**62),
        ("cell", "[" * 5000),
    ],
)
def test_what_no_record_says_is_damage(column: str, text: object, tmp_path: Path) -> None:
    path = filled(tmp_path / "s.db", 3)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE records SET {column} = ? WHERE id = 2", (text,))
    with Store.open(path) as store:
        with pytest.raises(RequestError, match=r"damaged.*workbench merge"):
            store.records()
        if column not in ("samples", "details"):
            with pytest.raises(RequestError, match=r"damaged.*workbench merge"):
                store.frame()
    assert merge([path], tmp_path / "out.db").num_records == 2


def loop(path: Path) -> Path:
    """A store whose table of records has a page that is its own child, many times."""
    filled(path, 400, 30)
    data = bytearray(path.read_bytes())
    page = next(n for n in range(1, len(data) // 4096) if data[n * 4096] == 5)
    count = int.from_bytes(data[page * 4096 + 3 : page * 4096 + 5], "big")
    for i in range(count):
        at = int.from_bytes(data[page * 4096 + 12 + 2 * i : page * 4096 + 14 + 2 * i], "big")
        data[page * 4096 + at : page * 4096 + at + 4] = (page + 1).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def test_a_page_that_is_its_own_child_is_damage_at_once(tmp_path: Path) -> None:
    path, begun = loop(tmp_path / "s.db"), time.process_time()
    with pytest.raises(RequestError, match=r"damaged.*workbench merge"):
        Store.open(path)
    assert merge([path], tmp_path / "out.db").num_records == 400
    assert time.process_time() - begun < 5


def test_overflow_pages_that_rows_share_are_read_once(tmp_path: Path) -> None:
    """Every row goes on in the same chain, which is as long as the file: squared, it was hours."""
    path = filled(tmp_path / "s.db", 20, 30_000)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM records WHERE id > 1")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
    data = bytearray(path.read_bytes())
    leaf = next(
        n
        for n in range(len(data) // 4096)
        if data[n * 4096] == 13 and len(merge_rows(data, n)) == 1
    )
    page = bytes(data[leaf * 4096 : (leaf + 1) * 4096])
    path.write_bytes(bytes(data) + page * 3000)
    begun = time.process_time()
    found = merge([path], tmp_path / "out.db")
    assert found.num_records == 1
    assert time.process_time() - begun < 3


def merge_rows(data: bytes, number: int) -> list[int]:
    """The cells of a leaf page that go on in others."""
    page = data[number * 4096 : (number + 1) * 4096]
    count = int.from_bytes(page[3:5], "big")
    ends = [int.from_bytes(page[8 + 2 * i : 10 + 2 * i], "big") for i in range(count)]
    return [at for at in ends if page[at] & 0x80 and page[at + 1] & 0x80]


SPARSE = """
import resource, sys
from pathlib import Path
from workbench.store.merge import merge
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
print(merge([Path(sys.argv[1])], Path(sys.argv[2])).num_records, resource.getrusage(
    resource.RUSAGE_SELF).ru_utime)
"""


def test_a_sparse_file_costs_what_is_in_it(tmp_path: Path) -> None:
    path = filled(tmp_path / "s.db", 50)
    data = bytearray(path.read_bytes())
    data[20_000:20_010] = bytes(10)
    data[100] = 0
    path.write_bytes(data)
    os.truncate(path, 20 * 10**9)
    done = subprocess.run(
        [sys.executable, "-c", SPARSE, path, tmp_path / "out.db"],
        capture_output=True,
        text=True,
        check=True,
    )
    count, seconds = done.stdout.split()
    assert int(count) >= 30
    assert float(seconds) < 5


def test_a_very_large_store_is_opened_with_its_newest_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    for number in range(5):
        filled(path, 100, run=f"r{number}")
    with Store.open(path) as store:
        assert store.left_out() is None
        assert len(store.frame()) == 500
    monkeypatch.setattr(portion, "SMALL", 0)
    with Store.open(path) as store:
        assert store.left_out() is None
        monkeypatch.setattr(portion, "MOST_BYTES", 600_000)
        frame = store.frame()
        assert set(frame["run"]) == {"r3", "r4"}
        assert "only the newest 2 of 5 runs are read, 200 records" in str(store.left_out())
        assert len(store.frame("r0")) == 100
        monkeypatch.setattr(portion, "MOST_BYTES", 100_000)
        frame = store.frame()
        assert set(frame["run"]) == {"r4"}
        assert 10 < len(frame) < 60
        assert max(frame["num_visual"]) == 99
        assert f"only the newest {len(frame)} records of the newest run r4" in str(
            store.left_out()
        )
        assert len(store.frame("r0")) == len(frame)
        assert len(store.records()) == 500


FRAME = """
import resource, sys
from workbench.store import Store
from workbench.vocabulary.errors import RequestError
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**29, 3 * 2**29))
try:
    with Store.open(sys.argv[1]) as store:
        store.frame()
except RequestError as error:
    print(error)
"""


def test_names_times_records_are_bounded_before_a_table_is_made(tmp_path: Path) -> None:
    """A few megabytes, whose table of metrics would take gigabytes."""
    path = filled(tmp_path / "s.db", 1)
    with sqlite3.connect(path) as connection:
        row = list(connection.execute("SELECT * FROM records").fetchone())
        for i in range(60_000):
            row[0], row[2], row[11] = i + 2, f"{i:016x}", f'{{"m{i % 900}":1}}'
            connection.execute(f"INSERT INTO records VALUES ({','.join('?' * 17)})", row)
    done = subprocess.run(
        [sys.executable, "-c", FRAME, path], capture_output=True, text=True, check=True
    )
    assert "a table of them would be larger than" in done.stdout
    assert done.stdout.count("\n") == 1
