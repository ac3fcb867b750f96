"""Exports: exact values, the documented columns, and nothing left half-written."""

import csv
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests import golden
from workbench.cli import main
from workbench.store import Store, StoreError
from workbench.store.export import CELL, export
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Environment, Record

BIG = 2**200 + 1
VALUES = {
    "flops": BIG,
    "params": 2**63 - 1,
    "peak_bytes": 2**53 + 1,
    "time_s": 0.1 + 0.2,
    "mfu": None,
    "energy_j": 5e-324,
    "novel": -7,
}
FILES = sorted(
    ["details.jsonl", "environment.json"]
    + [
        f"{table}.{kind}"
        for table in ("records", "metrics", "samples", "notes")
        for kind in ("csv", "parquet")
    ]
)
DOCS = Path(__file__).parents[2] / "docs" / "schema.md"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    cell = make_cell(
        **{"pass": "train"}, num_visual=64, chunk=512, memory_cap=2**70, weights='a,"b" =c ☃'
    )
    record = Record(
        cell=cell,
        source="measured",
        device="NVIDIA H200",
        status="ok",
        metrics=VALUES,
        samples={"time_s": [0.1, 1 / 3], "forward_s": [1e-9]},
        flags=["few samples", "mfu: no peak"],
        started_at="2026-01-01T00:00:00+00:00",
        duration_s=1 / 3,
        details={"memory_limit_bytes": 2**70, "words": ["☃"]},
    )
    failed = Record(
        cell=make_cell(num_visual=65),
        source="predicted",
        device="h100-80gb",
        status="error",
        error="line\nbreak, and ; more",
    )
    with Store.open(tmp_path / "s.db", "w") as out:
        out.add_many(out.begin_run("demo", {}, Environment()), [record, failed])
    return tmp_path / "s.db"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_spreadsheet_runs_no_text_of_an_inert_export(tmp_path: Path) -> None:
    hostile = "=HYPERLINK(1)"
    found = Record(
        cell=make_cell(num_visual=1, model=hostile),
        source="measured",
        device="cpu",
        status="ok",
        metrics={hostile: 1.0, "time_s": -0.5},
        flags=[hostile, "fine"],
        error=f"\t{hostile}",
    )
    with Store.open(tmp_path / "s.db", "w") as out:
        out.add(out.begin_run("demo", {}, Environment(), run_id="@run"), found)
    for name, mark in (("plain", ""), ("inert", "'")):
        main(
            ["export", str(tmp_path / "s.db"), "-o", str(tmp_path / name)]
            + ["--inert"] * bool(mark)
        )
        (record,) = rows(tmp_path / name / "records.csv")
        assert record["model"] == mark + hostile
        assert record["run"] == f"{mark}@run"
        assert record["flags"] == f"{mark}{hostile}; fine"
        assert record["error"] == f"{mark}\t{hostile}"
        values = {row["metric"]: row["value"] for row in rows(tmp_path / name / "metrics.csv")}
        assert values == {mark + hostile: "1.0", "time_s": "-0.5"}
    cells = (tmp_path / "inert" / "records.csv").read_text().splitlines()[0].split(",")
    assert all(cell.startswith('"') for cell in cells)


def test_csv_values_are_exact(store: Path, tmp_path: Path) -> None:
    found = export(store, tmp_path / "deep" / "out")
    assert found.notes == []
    assert sorted(path.name for path in found.files) == FILES
    metrics = rows(tmp_path / "deep" / "out" / "metrics.csv")
    assert list(metrics[0]) == ["run", "key", "source", "device", "metric", "value", "unit"]
    text = {row["metric"]: row["value"] for row in metrics}
    assert {k: json.loads(v) if v else None for k, v in text.items()} == VALUES
    assert text["flops"] == str(BIG)
    units = {row["metric"]: row["unit"] for row in metrics}
    assert (units["flops"], units["peak_bytes"], units["novel"]) == ("FLOP", "B", "")
    samples = rows(tmp_path / "deep" / "out" / "samples.csv")
    assert [float(row["value"]) for row in samples] == [0.1, 1 / 3, 1e-9]
    assert [row["index"] for row in samples] == ["0", "1", "0"]


def test_records_have_the_cell_under_its_public_names(store: Path, tmp_path: Path) -> None:
    export(store, tmp_path)
    first, second = rows(tmp_path / "records.csv")
    assert list(first)[:6] == ["run", "key", "source", "device", "status", "started_at"]
    assert list(first)[6 : 6 + len(CELL)] == list(make_cell(num_visual=1).document())
    assert (first["pass"], first["num_visual"], first["fold"], first["layer"]) == (
        "train",
        "64",
        "False",
        "",
    )
    assert first["memory_cap"] == str(2**70)
    assert first["weights"] == 'a,"b" =c ☃'
    assert first["flags"] == "few samples; mfu: no peak"
    assert float(first["duration_s"]) == 1 / 3
    assert (second["status"], second["error"]) == ("error", "line\nbreak, and ; more")


def test_parquet_holds_the_same(store: Path, tmp_path: Path) -> None:
    import pandas as pd

    export(store, tmp_path)
    metrics = pd.read_parquet(tmp_path / "metrics.parquet").set_index("metric")
    assert metrics.loc["flops", "value"] == float(BIG)
    assert metrics.loc["flops", "value_exact"] == str(BIG)
    assert metrics.loc["peak_bytes", "value_exact"] == str(2**53 + 1)
    assert pd.isna(metrics.loc["mfu", "value"])
    records = pd.read_parquet(tmp_path / "records.parquet")
    assert list(records.columns) == list(rows(tmp_path / "records.csv")[0])
    assert records["num_visual"].tolist() == [64, 65]
    assert records["fold"].tolist() == [False, False]
    assert records["memory_cap"][0] == str(2**70)
    assert pd.read_parquet(tmp_path / "samples.parquet")["value"].tolist() == [0.1, 1 / 3, 1e-9]


@pytest.mark.parametrize("kind", golden.CONTENTS)
def test_every_store_exports_with_the_same_columns(tmp_path: Path, kind: str) -> None:
    from pyarrow import parquet

    export(golden.build(tmp_path / "s.db", kind), tmp_path / "out")
    export(golden.build(tmp_path / "e.db", "empty"), tmp_path / "empty")
    with Store.open(tmp_path / "s.db") as store:
        records = store.records()
    assert len(rows(tmp_path / "out" / "records.csv")) == len(records)
    for name in ("records", "metrics", "samples", "notes"):
        full, empty = (
            parquet.read_schema(tmp_path / folder / f"{name}.parquet")
            for folder in ("out", "empty")
        )
        assert full == empty


def test_without_pandas_and_pyarrow_there_is_csv_and_a_note(store: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(pandas=None, pyarrow=None, numpy=None)\n"
        "from workbench.store.export import export\n"
        "found = export(sys.argv[1], sys.argv[2])\n"
        "assert len(found.files) == 6 and 'pip install pyarrow' in found.notes[0], found\n"
    )
    done = subprocess.run([sys.executable, "-c", code, store, tmp_path / "o"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
        name for name in FILES if not name.endswith(".parquet")
    ]


def test_a_second_export_replaces_the_first(store: Path, tmp_path: Path) -> None:
    export(golden.build(tmp_path / "g.db", "like_default"), tmp_path / "out")
    export(store, tmp_path / "out")
    assert len(rows(tmp_path / "out" / "records.csv")) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def test_notes_details_and_environments_come_along(store: Path, tmp_path: Path) -> None:
    with Store.open(store, "w") as opened:
        (run,) = opened.runs()
        first = opened.records()[0]
        of = (run.id, first.cell.key, first.source, first.device)
        opened.write_note(of, 'odd, "again"\n☃', ["slow", "ask Ada"])
        opened.write_note((run.id, "", "", ""), "the first night")
    export(store, tmp_path / "out")
    identity = ("run", "key", "source", "device")
    found = {
        tuple(row[name] for name in identity): row for row in rows(tmp_path / "out/notes.csv")
    }
    assert {of: (row["text"], row["tags"]) for of, row in found.items()} == {
        of: ('odd, "again"\n☃', "slow, ask Ada"),
        (run.id, "", "", ""): ("the first night", ""),
    }
    lines = (tmp_path / "out" / "details.jsonl").read_text().splitlines()
    told = {
        tuple(line[name] for name in identity): line["details"] for line in map(json.loads, lines)
    }
    assert told[of] == first.details
    assert len(told) == 2
    environments = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environments[run.id]["started_at"] == run.started_at
    assert environments[run.id]["torch"] == first.environment.torch


def test_bad_requests_are_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="is a file"):
        export(store, tmp_path / "file")
    with pytest.raises(RequestError, match="no such file"):
        export(tmp_path / "missing.db", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RequestError, match="damaged"):
        export(golden.build(tmp_path / "d.db", "damaged"), tmp_path / "out")


def test_no_space_leaves_the_old_files_and_no_fragments(store: Path, tmp_path: Path) -> None:
    export(store, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    big = golden.build(tmp_path / "g.db", "like_default")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            export(big, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_documentation_names_every_column(store: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    text = DOCS.read_text(encoding="utf-8")
    export(store, tmp_path)
    for name in ("records", "metrics", "samples"):
        columns = parquet.read_schema(tmp_path / f"{name}.parquet").names
        assert [column for column in columns if f"`{column}`" not in text] == []
