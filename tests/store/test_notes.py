"""Notes: kept, replaced, merged, checked; older stores take them, and none is ever markup."""

import sqlite3
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests import golden
from tests.dashboard.test_pages import page, words
from workbench.store import Store, schema
from workbench.store.merge import merge
from workbench.store.notes import Note
from workbench.vocabulary.errors import RequestError

EDIT = """
from workbench.dashboard.notes import editors
from workbench.dashboard.shell import data
store = data()
editors(store, store.frame.iloc[0])
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return golden.build(tmp_path / "s.db", "one_cell")


def of_record(store: Store) -> tuple[str, str, str, str]:
    ((run, record),) = store.items()
    return run, record.cell.key, record.source, record.device


def test_a_note_is_kept_replaced_and_ended(path: Path) -> None:
    with Store.open(path, "w") as store:
        record = of_record(store)
        whole = (record[0], "", "", "")
        store.write_note(record, " slow?\nagain ", ["baseline", " baseline", "", "x y"])
        store.write_note(whole, "the run", [])
    with Store.open(path) as store:
        assert store.notes() == {
            record: Note("slow?\nagain", ("baseline", "x y")),
            whole: Note("the run"),
        }
    with Store.open(path, "w") as store:
        store.write_note(record, "better", [])
        store.write_note(whole, "", [])
        assert store.notes() == {record: Note("better")}
        with pytest.raises(RequestError, match="run"):
            store.write_note(("nowhere", "", "", ""), "x")


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("x" * 2_001, []),
        ("", ["t"] * 3 + list("abcdefghijk")),
        ("", ["x" * 41]),
        ("", ["a,b"]),
        ("\x1b[31m", []),
        ("", ["\u202eevil"]),
    ],
)
def test_what_is_no_note_is_refused(path: Path, text: str, tags: list[str]) -> None:
    with Store.open(path, "w") as store:
        with pytest.raises(RequestError) as refused:
            store.write_note(of_record(store), text, tags)
        assert "\n" not in str(refused.value)
        assert store.notes() == {}


def test_an_older_store_has_none_and_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(schema, "STEPS", schema.STEPS[:1])
        path = golden.build(tmp_path / "old.db", "one_cell")
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    with Store.open(path) as store:
        assert store.notes() == {}
    with Store.open(path, "w") as store:
        store.write_note(of_record(store), "hello")
    with Store.open(path) as store:
        assert [note.text for note in store.notes().values()] == ["hello"]


def test_merge_keeps_the_first_of_two(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(path.read_bytes())
    with Store.open(path, "w") as store:
        record = of_record(store)
        store.write_note(record, "first")
    with Store.open(other, "w") as store:
        store.write_note(record, "second")
        store.write_note((record[0], "", "", ""), "of the run")
    merge([path, other], tmp_path / "both.db")
    with Store.open(tmp_path / "both.db") as store:
        texts = {of[1]: note.text for of, note in store.notes().items()}
    assert texts == {record[1]: "first", "": "of the run"}


def test_a_stranger_s_note_is_checked_when_it_is_read(path: Path) -> None:
    with Store.open(path, "w") as store:
        store.write_note(of_record(store), "fine")
    for tags in ('{"a": 1}', "[1]", "[", '["\\u202e"]'):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE notes SET tags = ?", (tags,))
        with Store.open(path) as store, pytest.raises(RequestError, match="damaged"):
            store.notes()


def test_the_page_writes_and_shows_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr("sys.argv", ["app.py"])
    test = AppTest.from_string(EDIT, default_timeout=60).run()
    test.text_area[0].set_value("<b>odd</b>")
    test.text_input[0].set_value("check, baseline")
    test.button[0].click().run()
    assert not test.exception
    with Store.open(path) as store:
        assert store.notes() == {of_record(store): Note("<b>odd</b>", ("check", "baseline"))}
    shown = page("runs", path.parent, monkeypatch, containing="baseline")
    assert shown.dataframe[0].value["tags"].tolist() == ["check, baseline"]
    assert "<b>" not in words(shown)
