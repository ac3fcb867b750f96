"""The store on real files: rows come back exactly, bad files are named."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from tests import golden
from workbench.store import Store, schema, version_token
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Environment, Record, Status

ENV = Environment(host="here", cpu="Testor 9", num_threads=2)


def record(num_visual: int = 64, status: str = "ok", **fields: object) -> Record:
    cell = {"num_visual": num_visual} | dict(fields.pop("cell", {}))
    fields = {
        "metrics": {"flops": 10**6 + num_visual, "time_s": 0.1 / 3, "mfu": None},
        "samples": {"time_s": [0.1 / 3, 0.25, 1e-9]},
        "environment": ENV,
        "started_at": "2026-01-01T00:00:00+00:00",
    } | fields
    return Record(cell=make_cell(**cell), source="measured", device="cpu", status=status, **fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


def filled(path: Path, *records: Record) -> str:
    with Store.open(path, "w") as store:
        run = store.begin_run("demo", {"name": "demo"}, ENV)
        store.add_many(run, records)
        return run


def test_a_record_comes_back_exactly(path: Path) -> None:
    cell = {
        "pass": "train",
        "attention": "d_attn",
        "fold": True,
        "chunk": 512,
        "memory_cap": 2**70,
        "weights": "a \"b\"; 'c' </script> ☃",
    }
    full = record(
        0,
        cell=cell,
        metrics={
            "flops": 2**200 + 1,
            "params": -(2**63),
            "peak_bytes": 2**63 - 1,
            "model_flops": 2**63,
            "time_s": 0.1 + 0.2,
            "mfu": None,
            "energy_j": 5e-324,
        },
        flags=["mfu: no datasheet", "few samples"],
        error="line\nbreak",
        details={"ops": [{"name": "mm", "flops": 2**64}], "empty": {}},
        duration_s=1 / 3,
        environment=ENV.model_copy(update={"host": "there", "extra": {"a": 1}}),
    )
    run = filled(path, full, record(64))
    with Store.open(path) as store:
        assert store.records(run) == [full, record(64)]
        assert store.records() == store.records(run)
        assert store.runs()[0].spec == {"name": "demo"}
        assert store.runs()[0].environment == ENV
        assert store.runs()[0].num_records == 2


def test_a_done_record_stays_and_any_other_is_replaced(path: Path) -> None:
    with Store.open(path, "w") as store:
        run = store.begin_run("demo", {}, ENV)
        for status in (Status.KILLED, Status.TIMEOUT, Status.ERROR):
            assert store.add(run, record(status=status))
            assert set(store.identities(run).values()) == {status}
        assert store.add(run, record(status="oom"))
        assert not store.add(run, record(status="ok"))
        assert not store.add(run, record(status="killed"))
        assert [found.status for found in store.records(run)] == [Status.OOM]
        assert store.add(run, record().model_copy(update={"device": "NVIDIA H200"}))
        assert store.identities(run) == {
            (record().cell.key, "measured", "cpu"): Status.OOM,
            (record().cell.key, "measured", "NVIDIA H200"): Status.OK,
        }


def test_a_run_is_continued_in_the_same_environment_only(path: Path) -> None:
    with Store.open(path, "w") as store:
        first = store.begin_run("demo", {}, ENV)
        elsewhere = ENV.model_copy(update={"host": "node7", "commit": "abc"})
        assert store.begin_run("demo", {"changed": True}, elsewhere) == first
        assert store.begin_run("other", {}, ENV) != first
        assert store.begin_run("demo", {}, ENV.model_copy(update={"torch": "9"})) != first
        second = store.begin_run("demo", {}, ENV, new=True)
        assert second != first
        assert store.begin_run("demo", {}, ENV) == second
        assert store.begin_run("demo", {}, ENV, run_id="shard-run") == "shard-run"
        assert store.begin_run("demo", {}, ENV, run_id="shard-run") == "shard-run"
        assert [run.id for run in store.runs()].count("shard-run") == 1
        assert store.runs()[0].spec == {"changed": True}


def test_an_unknown_run_is_named(path: Path) -> None:
    run = filled(path, record())
    with Store.open(path) as store:
        for call in (store.identities, store.records, store.frame):
            with pytest.raises(RequestError, match=f"run 'nope' is unknown.*{run}"):
                call("nope")


def test_frame_has_every_field_and_metric(path: Path) -> None:
    big = record(128, metrics={"flops": 2**64, "time_s": 2.0, "num_samples": 7, "novel": 4})
    filled(path, record(64, flags=["a", "b"], error="boom", status="error"), big)
    with Store.open(path) as store:
        frame = store.frame()
        small = store.frame(metrics=["time_s"])
        run = store.runs()[0]
    public = set(make_cell(num_visual=1).document())
    assert public <= set(frame.columns)
    assert list(frame["run"]) == [run.id] * 2
    assert list(frame["sweep"]) == ["demo"] * 2
    assert list(frame["status"]) == ["error", "ok"]
    assert list(frame["flags"]) == [("a", "b"), ()]
    assert list(frame["error"]) == ["boom", None]
    assert list(frame["num_visual"]) == [64, 128]
    assert frame["num_visual"].dtype == "int64"
    assert list(frame["pass"]) == ["forward"] * 2
    assert list(frame["chunk"]) == [None, None]
    assert list(frame["flops"]) == [10**6 + 64, 2**64]
    assert all(isinstance(value, int) for value in frame["flops"])
    assert frame["time_s"].dtype == "float64"
    assert frame["mfu"].isna().all()
    assert list(frame["num_samples"]) == [3, 7]
    assert list(frame["novel"])[1] == 4
    assert not {"flops", "mfu"} & set(small.columns)
    assert list(small["time_s"]) == [0.1 / 3, 2.0]


def test_frame_of_one_run_and_of_none(path: Path) -> None:
    with Store.open(path, "w") as store:
        runs = [store.begin_run("demo", {}, ENV, new=True) for _ in range(2)]
        assert store.frame().empty
        assert "pass" in store.frame().columns
        store.add(runs[0], record(64))
        store.add(runs[1], record(128))
        assert list(store.frame(runs[1])["num_visual"]) == [128]
        assert store.frame(metrics=[])["num_samples"].tolist() == [3, 3]


def test_figures_of_some_records(path: Path) -> None:
    run = filled(path, record(64), record(128, details={"capacity_bytes": 7, "word": "x"}))
    with Store.open(path) as store:
        index = store.frame(metrics=[])
        last = index.index[1:]
        found = store.figures(last, details=["capacity_bytes", "word"])
        whole = store.frame().loc[last]
        assert list(found.index) == list(last)
        assert found["time_s"].tolist() == whole["time_s"].tolist()
        assert found["num_samples"].tolist() == whole["num_samples"].tolist()
        assert found["capacity_bytes"].tolist() == [7.0]
        assert found["word"].isna().all()
        assert "time_s" not in store.figures(last, metrics=())
        assert store.figures([]).empty
        key = record(128).cell.key
        assert store.samples(last) == {
            (run, key, "measured", "cpu"): record(128).samples["time_s"]
        }
        assert store.samples(last, "energy_j") == {}


def test_the_metrics_view_shows_rows(path: Path) -> None:
    filled(path, record(metrics={"flops": 2**70, "time_s": 0.5, "mfu": None, "odd": 1}))
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, value, unit FROM metrics ORDER BY name").fetchall()
    assert rows == [
        ("flops", str(2**70), "FLOP"),
        ("mfu", None, "1"),
        ("odd", 1, ""),
        ("time_s", 0.5, "s"),
    ]


def test_version_token_changes_with_the_store(path: Path) -> None:
    run = filled(path, record(1))
    before = version_token(path)
    with Store.open(path) as reader:
        assert reader.version_token() == before
        with Store.open(path, "w") as store:
            store.add(run, record(2))
        assert reader.version_token() != before
    with pytest.raises(RequestError, match=r"missing\.db"):
        version_token(path.parent / "missing.db")


@pytest.mark.parametrize("name", ["a?b#c%20d.db", "ü ☃.db", "-o.db", "'; DROP TABLE runs.db"])
def test_odd_names_are_plain_files(tmp_path: Path, name: str) -> None:
    filled(tmp_path / name, record())
    assert os.listdir(tmp_path) == [name]
    with Store.open(tmp_path / name) as store:
        assert len(store.records()) == 1


def test_bad_paths_are_refused_in_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = {
        tmp_path / "missing.db": "no such file",
        tmp_path: "is a folder",
        tmp_path / "pipe": "not a regular file",
        tmp_path / "nul\0.db": "not a usable path",
        tmp_path / ("x" * 300): "not a usable path",
    }
    for path, words in cases.items():
        with pytest.raises(RequestError, match=words) as caught:
            Store.open(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match="folder does not exist"):
        Store.open(tmp_path / "no" / "s.db", "w")
    with pytest.raises(RequestError, match="is a folder"):
        Store.open(tmp_path, "w")


@pytest.mark.parametrize("mode", ["r", "w"])
def test_files_that_are_no_store_are_refused_and_left_alone(tmp_path: Path, mode: str) -> None:
    text = tmp_path / "notes.db"
    text.write_text("not a database, but long enough to hold a header of an SQLite file. " * 9)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE runs (id)")
    hollow = tmp_path / "hollow.db"
    with sqlite3.connect(hollow) as connection:
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("CREATE VIEW runs AS SELECT 1")
    for path, words in ((text, "not a store"), (other, "not one of"), (hollow, "tables")):
        before = path.read_bytes()
        with pytest.raises(RequestError, match=words) as caught:
            Store.open(path, mode)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before


def test_a_store_with_a_trigger_is_refused(path: Path) -> None:
    filled(path, record())
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END"
        )
    for mode in ("r", "w"):
        with pytest.raises(RequestError, match="tables"):
            Store.open(path, mode)


def test_an_empty_file_is_an_empty_store(path: Path) -> None:
    path.touch()
    with Store.open(path) as store:
        assert store.runs() == []
        assert store.frame().empty
    assert path.stat().st_size == 0
    filled(path, record())


def test_rows_from_a_stranger_are_data_only(path: Path) -> None:
    filled(path, record(1), record(2))
    hostile = {
        "metrics": [
            "[]",
            "{",
            '{"time_s": NaN}',
            '{"time_s": [1]}',
            '{"time_s": "x"}',
            "1],[2",
            '{"a": 1' + "0" * 400 + "}",
            '{"a": "1' + "0" * 400 + '"}',
            '{"a": 1e999}',
            "[" * 100_000,
            b"\xff",
        ],
        "cell": ['{"attention": 7}', '{"unknown_field": 1}', "null"],
        "flags": ["{", "3"],
    }
    for column, values in hostile.items():
        for value in values:
            with sqlite3.connect(path) as connection:
                old = connection.execute(f"SELECT {column} FROM records WHERE id = 1").fetchone()[
                    0
                ]
                connection.execute(f"UPDATE records SET {column} = ? WHERE id = 1", (value,))
            with Store.open(path) as store:
                for call in (store.records, store.frame):
                    with pytest.raises(RequestError, match=r"damaged.*workbench merge"):
                        call()
                assert len(store.check()) == 1
            with sqlite3.connect(path) as connection:
                connection.execute(f"UPDATE records SET {column} = ? WHERE id = 1", (old,))
    with Store.open(path) as store:
        assert store.check() == []


def test_a_newer_schema_is_refused_and_an_older_one_opens(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = filled(path, record(64))
    before = path.read_bytes()
    step = "ALTER TABLE runs ADD COLUMN note TEXT"
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, step))
    schema._objects.cache_clear()
    with Store.open(path) as store:
        assert store.records(run) == [record(64)]
    assert path.read_bytes() == before
    with Store.open(path, "w") as store:
        assert store.add(run, record(128))
        assert len(store.records()) == 2
    monkeypatch.undo()
    schema._objects.cache_clear()
    newer = len(schema.STEPS) + 1
    for mode in ("r", "w"):
        with pytest.raises(RequestError, match=rf"schema version {newer} is newer"):
            Store.open(path, mode)


def test_the_file_is_no_less_private_than_the_umask(path: Path) -> None:
    filled(path, record())
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~umask


def test_some_records_are_found_by_their_identities(tmp_path: Path) -> None:
    made = [golden.record(num_visual=v) for v in (64, 128, 256)]
    with Store.open(tmp_path / "s.db", "w") as store:
        run = store.begin_run("s", {}, golden.LAPTOP)
        store.add_many(run, made)
        wanted = [(run, one.cell.key, one.source, one.device) for one in made]
        nowhere = (run, "0" * 16, "measured", "cpu")
        found = store.some([wanted[2], nowhere, wanted[0]])
    assert found == {wanted[2]: made[2], wanted[0]: made[0]}


def test_a_frame_takes_numbers_out_of_details(tmp_path: Path) -> None:
    details = [{"a": 2**40}, {"a": "text", "b": 1.5}, {}]
    made = [
        golden.record(num_visual=64 * 2**i).model_copy(update={"details": each})
        for i, each in enumerate(details)
    ]
    with Store.open(tmp_path / "s.db", "w") as store:
        store.add_many(store.begin_run("s", {}, golden.LAPTOP), made)
        frame = store.frame(details=("a", "b"))
    assert frame["a"].fillna(-1).tolist() == [2**40, -1, -1]
    assert frame["b"].fillna(-1).tolist() == [-1, 1.5, -1]


def test_records_with_details_are_found_by_what_they_hold(tmp_path: Path) -> None:
    details = [{"trace": {"parts": [1]}}, {"trace": {}}, {"modules": None}, {"modules": []}, {}]
    made = [
        Record(
            cell=make_cell(num_visual=1 + at),
            source="measured",
            device="cpu",
            status="ok",
            details=held,
        )
        for at, held in enumerate(details)
    ]
    with Store.open(tmp_path / "s.db", "w") as store:
        run = store.begin_run("demo", {}, Environment())
        store.add_many(run, made)
        found = store.with_details(["trace.parts", "modules"])
        expected = {(run, made[at].cell.key, "measured", "cpu") for at in (0, 3)}
        assert found == expected
        assert store.with_details(["modules"]) == {(run, made[3].cell.key, "measured", "cpu")}
