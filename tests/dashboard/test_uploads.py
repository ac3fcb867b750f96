"""A stranger's file is checked before anything of it is shown, and named by us."""

import sqlite3
from pathlib import Path

import pytest

from workbench.dashboard import uploads
from workbench.dashboard.uploads import keep
from workbench.store import Store
from workbench.vocabulary.errors import RequestError


def sneaky(path: Path, statement: str, stores: Path) -> bytes:
    path.write_bytes((stores / "one_cell.db").read_bytes())
    connection = sqlite3.connect(path)
    connection.executescript(statement)
    connection.close()
    return path.read_bytes()


def test_a_store_is_kept_under_a_name_of_ours(stores: Path, tmp_path: Path) -> None:
    path = keep((stores / "like_default.db").read_bytes(), tmp_path, 3)
    assert path == tmp_path / "upload-3.db"
    with Store.open(path) as store:
        assert len(store.frame()) == 75


HOSTILE = {
    "trigger": "CREATE TRIGGER t AFTER INSERT ON runs BEGIN SELECT 1; END;",
    "view": "DROP VIEW metrics; CREATE VIEW metrics AS SELECT load_extension('x');",
    "other program's": "PRAGMA application_id = 7;",
    "newer": "PRAGMA user_version = 999;",
    "metrics": "UPDATE records SET metrics = '[1, 2';",
    "a million metrics": """UPDATE records SET metrics = (
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
        SELECT json_group_object('m' || i, i) FROM n);""",
    "cell": """UPDATE records SET cell = '{"kernel": 5}';""",
    "details": "UPDATE records SET environment = x'ff';",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_stores_are_refused_with_one_line(kind: str, stores: Path, tmp_path: Path) -> None:
    content = sneaky(tmp_path / "made.db", HOSTILE[kind], stores)
    if kind == "details":
        # Only a look at the record decodes this; the pages that look say so.
        keep(content, tmp_path, 1)
        return
    with pytest.raises(RequestError) as refused:
        keep(content, tmp_path, 1)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    assert not (tmp_path / "upload-1.db").exists()


@pytest.mark.parametrize("kind", ["damaged", "not_a_store"])
def test_broken_files_are_refused(kind: str, stores: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        keep((stores / f"{kind}.db").read_bytes(), tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_BYTES", 1_000)
    with pytest.raises(RequestError, match="at most 1,000"):
        keep(bytes(1_001), tmp_path, 1)
