"""Merging: every record once, and of a damaged store whatever can still be read."""

import random
import sqlite3
from pathlib import Path

import pytest

from tests import golden
from workbench.store import Store
from workbench.store.merge import merge
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Environment, Record

ENV = Environment(host="a", torch="2.13")
OTHER = Environment(host="b", torch="2.11")


def record(
    num_visual: int,
    status: str = "ok",
    seconds: float = 1.0,
    num_samples: int = 3,
    environment: Environment = ENV,
    **metrics: float,
) -> Record:
    return Record(
        cell=make_cell(num_visual=num_visual),
        source="measured",
        device="cpu",
        status=status,
        metrics={"time_s": seconds, "flops": 2**70 + num_visual, **metrics},
        samples={"time_s": [seconds + i / 7 for i in range(num_samples)]},
        environment=environment,
        started_at="2026-01-01T00:00:00+00:00",
    )


def store(path: Path, *records: Record, run: str = "r", environment: Environment = ENV) -> Path:
    with Store.open(path, "w") as out:
        name = out.begin_run("demo", {"name": "demo"}, environment, run_id=run)
        out.add_many(name, records)
    return path


def contents(path: Path) -> dict[tuple[str, int], Record]:
    with Store.open(path) as found:
        assert found.check() == []
        items = list(found.items())
    merged = {(run, record.cell.num_visual): record for run, record in items}
    assert len(merged) == len(items)
    return merged


def test_each_record_once_and_done_before_not_done(tmp_path: Path) -> None:
    a = store(tmp_path / "a.db", record(1), record(2, "killed"), record(3, "error", 5.0))
    b = store(tmp_path / "b.db", record(1, seconds=9.0), record(2), record(3, "timeout", 6.0))
    c = store(tmp_path / "c.db", record(1, "error"), record(4), run="other")
    before = [path.read_bytes() for path in (a, b, c)]
    done = merge([a, b, c], tmp_path / "out.db")
    assert (done.num_runs, done.num_records, done.notes) == (2, 5, [])
    found = contents(tmp_path / "out.db")
    assert found == {
        ("r", 1): record(1),
        ("r", 2): record(2),
        ("r", 3): record(3, "timeout", 6.0),
        ("other", 1): record(1, "error"),
        ("other", 4): record(4),
    }
    assert [path.read_bytes() for path in (a, b, c)] == before
    merge([c, b, a], tmp_path / "reversed.db")
    assert contents(tmp_path / "reversed.db")["r", 2] == record(2)


def test_merging_again_changes_nothing(tmp_path: Path) -> None:
    paths = [store(tmp_path / "a.db", record(1)), store(tmp_path / "b.db", record(2), run="s")]
    merge(paths, tmp_path / "out.db")
    before = contents(tmp_path / "out.db")
    assert merge(paths, tmp_path / "out.db").num_added == 0
    merge([*paths, tmp_path / "out.db"], tmp_path / "again.db")
    assert contents(tmp_path / "out.db") == contents(tmp_path / "again.db") == before


def test_an_input_is_not_written_to_by_whatever_name(tmp_path: Path) -> None:
    a, b = store(tmp_path / "a.db", record(1)), store(tmp_path / "b.db", record(2), run="s")
    before = a.read_bytes()
    (tmp_path / "link.db").symlink_to(a)
    (tmp_path / "folder").mkdir()
    for out in (a, tmp_path / "link.db", tmp_path / "folder" / ".." / "a.db"):
        with pytest.raises(RequestError, match="is an input; -o names another file"):
            merge([a, b], out)
        assert a.read_bytes() == before


def test_an_existing_store_is_added_to(tmp_path: Path) -> None:
    out = store(tmp_path / "out.db", record(1), record(2, "killed"))
    done = merge([store(tmp_path / "a.db", record(2), record(3))], out)
    assert (done.num_added, done.num_records) == (2, 3)
    assert contents(out)["r", 2].status.done


def test_shards_of_one_run_keep_their_own_environment(tmp_path: Path) -> None:
    a = store(tmp_path / "a.db", record(1))
    b = store(tmp_path / "b.db", record(2, environment=OTHER), environment=OTHER)
    merge([a, b], tmp_path / "out.db")
    found = contents(tmp_path / "out.db")
    assert found["r", 1].environment == ENV
    assert found["r", 2].environment == OTHER


def test_runs_keep_their_facts_and_follow_in_time(tmp_path: Path) -> None:
    late, early = tmp_path / "late.db", tmp_path / "early.db"
    store(late, record(1), run="late")
    store(early, record(1, novel=3.0), run="early")
    with sqlite3.connect(early) as connection:
        connection.execute("UPDATE runs SET started_at = '2020-01-01T00:00:00+00:00'")
        connection.execute("UPDATE units SET unit = 'furlong' WHERE name = 'novel'")
    merge([late, early], tmp_path / "out.db")
    with Store.open(tmp_path / "out.db") as out, Store.open(early) as source:
        assert [run.id for run in out.runs()] == ["early", "late"]
        assert out.runs()[0] == source.runs()[0]
        assert out.units()["novel"] == "furlong"


def test_bad_requests_write_nothing(tmp_path: Path) -> None:
    good = store(tmp_path / "a.db", record(1))
    picture = golden.build(tmp_path / "cat.db", "not_a_store")
    for inputs, words in (
        ([], "at least one"),
        ([good, tmp_path / "missing.db"], "no such file"),
        ([good, picture], "no readable record"),
        ([tmp_path], "is a folder"),
    ):
        with pytest.raises(RequestError, match=words) as caught:
            merge(inputs, tmp_path / "out.db")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out.db").exists()
    before = picture.read_bytes()
    with pytest.raises(RequestError, match="not a store"):
        merge([good], picture)
    assert picture.read_bytes() == before


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, dict[tuple[str, int], Record]]:
    """Rows that share a page, rows that fill several, and two runs."""
    path = tmp_path / "large.db"
    store(path, *(record(i, num_samples=i % 40) for i in range(150)))
    store(path, *(record(i, num_samples=600) for i in range(150, 180)), run="second")
    return path, contents(path)


def assert_saved(path: Path, whole: dict, at_least: float) -> None:
    damaged = path.read_bytes()
    done = merge([path], path.with_name("saved.db"))
    assert path.read_bytes() == damaged
    assert len(done.notes) == 1
    assert "damaged" in done.notes[0]
    assert f"{done.num_records} records saved" in done.notes[0]
    found = {visual: record for (_, visual), record in contents(done.out).items()}
    by_visual = {visual: record for (_, visual), record in whole.items()}
    # The run's row may be gone, and its environment with it; every number must be right.
    for visual, saved in found.items():
        want = by_visual[visual]
        assert saved.model_copy(update={"environment": want.environment}) == want
    assert len(found) >= at_least * len(whole)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.999])
def test_a_truncated_store_gives_the_rows_that_are_left(large: tuple, share: float) -> None:
    path, whole = large
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert_saved(path, whole, 0.5 * share)


@pytest.mark.parametrize("number", range(8))
def test_a_store_with_an_overwritten_page_gives_the_others(large: tuple, number: int) -> None:
    path, whole = large
    data = bytearray(path.read_bytes())
    # Pages 1 to 8: the header with the tables' roots, the roots themselves, the first leaves.
    data[number * 4096 : (number + 1) * 4096] = random.Random(number).randbytes(4096)
    path.write_bytes(data)
    assert_saved(path, whole, 0.9)


def test_scattered_damage_costs_what_it_hit(large: tuple) -> None:
    path, whole = large
    chance, data = random.Random(3), bytearray(path.read_bytes())
    for _ in range(12):
        at = chance.randrange(len(data) - 200)
        data[at : at + 200] = chance.randbytes(200)
    path.write_bytes(data)
    assert_saved(path, whole, 0.6)


def test_deleted_rows_do_not_come_back_done(large: tuple) -> None:
    path, _ = large
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM records WHERE id <= 140")
    data = bytearray(path.read_bytes())
    # The root of the table is lost; the pages that the rows were on are on the free list.
    data[4096 : 4096 * 2] = bytes(4096)
    path.write_bytes(data)
    done = merge([path], path.with_name("saved.db"))
    assert done.num_records == 40


def test_a_sound_store_beside_a_damaged_one(large: tuple, tmp_path: Path) -> None:
    path, whole = large
    sound = store(tmp_path / "sound.db", record(1000))
    path.write_bytes(path.read_bytes()[:60_000])
    done = merge([path, sound], tmp_path / "both.db")
    assert len(done.notes) == 1
    assert ("r", 1000) in contents(tmp_path / "both.db")
    assert 1 < done.num_records < len(whole)


def test_a_row_that_makes_no_sense_is_left_out_of_sound_pages(tmp_path: Path) -> None:
    path = store(tmp_path / "a.db", record(1, novel=3.0), record(2), record(3))
    with Store.open(path, "w") as out:
        out.write_note(("r", "", "", ""), "why this was run")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE records SET metrics = '[]' WHERE num_visual = 2")
        connection.execute("UPDATE units SET unit = 'furlong' WHERE name = 'novel'")
    done = merge([path], tmp_path / "saved.db")
    assert "damaged; 2 records saved" in done.notes[0]
    assert "1 rows were there but made no sense" in done.notes[0]
    assert contents(done.out) == {("r", 1): record(1, novel=3.0), ("r", 3): record(3)}
    with Store.open(done.out) as saved:
        assert [note.text for note in saved.notes().values()] == ["why this was run"]
        assert saved.units()["novel"] == "furlong"
