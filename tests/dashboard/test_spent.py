"""Where the time goes: told by part and operator, traced or predicted; trace files."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from tests import golden
from tests.dashboard.test_pages import page, words
from workbench.dashboard.save import csv_of
from workbench.dashboard.stores import sibling_store
from workbench.figures import LIGHT, spent
from workbench.store import Store
from workbench.telling.spent import spent_of, trace_file
from workbench.vocabulary.errors import RequestError

MEASURED = golden.record(num_visual=256, attention="d_attn")


def test_a_trace_is_told_by_part_and_by_operator() -> None:
    found = spent_of(MEASURED)
    parts = found[found["by"] == "part"].set_index("name")["time_s"]
    assert parts.index[0] == "MLP"
    assert {"V2V", "T2V", "norms"} <= set(parts.index)
    assert parts.sum() == pytest.approx(MEASURED.metrics["time_s"])
    assert set(found["how"]) == {"traced"}


def test_without_a_trace_the_prediction_s_operators_stand_and_say_so() -> None:
    found = spent_of(golden.record("predicted", "h100-80gb", num_visual=256))
    assert set(found["how"]) == {"predicted"}
    operators = found[found["by"] == "operator"].set_index("name")
    assert operators.loc["mm", "calls"] == 8  # Projections' and MLP's in one.
    assert spent_of(MEASURED.model_copy(update={"details": {}})).empty


@pytest.mark.parametrize("file", ["../up", "/etc/passwd", "a\\b", "", ".hidden", 7, None])
def test_a_trace_file_is_a_bare_name(file: object) -> None:
    record = MEASURED.model_copy(update={"details": {"trace": {"file": file}}})
    assert trace_file(record) is None


def test_a_trace_lies_beside_the_store(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    (inner / "traces").mkdir(parents=True)
    (tmp_path / "secret.json").write_text("{}")
    (inner / "link.json").symlink_to(tmp_path / "secret.json")
    (inner / "traces" / "a.json").write_text("{}")
    assert sibling_store(inner / "s.db", "a.json") == inner / "traces" / "a.json"
    for name in ("link.json", "gone.json", "../secret.json"):
        with pytest.raises(RequestError):
            sibling_store(inner / "s.db", name)


def test_bars_add_up_to_the_iteration() -> None:
    found = spent_of(MEASURED).assign(system="D-Attn · sdpa")
    parts = found[found["by"] == "part"]
    seconds = spent(parts, LIGHT)
    assert sum(t.x[0] for t in seconds.data) == pytest.approx(MEASURED.metrics["time_s"])
    share = spent(parts, LIGHT, share=True)
    assert sum(t.x[0] for t in share.data) == pytest.approx(100)


def test_the_seconds_stand_at_the_end_of_each_bar() -> None:
    rows = pd.DataFrame({"system": ["a", "b"], "name": "whole", "time_s": [2.0, 0.5]})
    ends = spent(rows, LIGHT).layout.annotations
    assert [(end.y, end.x, end.text) for end in ends] == [("a", 2.0, "2 s"), ("b", 0.5, "500 ms")]


def test_seconds_that_nothing_splits_are_whole_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = [
        golden.record(num_visual=256, attention=name).model_copy(update={"details": {}})
        for name in ("s_attn", "d_attn")
    ]
    with Store.open(tmp_path / "s.db", mode="w") as store:
        store.add_many(store.begin_run("s", {}, golden.LAPTOP), bare)
    test = page("time", tmp_path, monkeypatch)
    assert not test.exception
    (chart,) = test.get("plotly_chart")
    assert "the whole iteration, not split" in chart.proto.spec
    assert "measured without a trace" in words(test)
    assert "is the fastest at \\|V\\| = 256" in words(test)


def test_the_page_offers_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden.build(tmp_path / "s.db", "one_cell")
    name = f"{MEASURED.cell.key}.pt.trace.json"
    test = page("time", tmp_path, monkeypatch, store="s.db")
    assert "not in the store's folder" in words(test)
    (tmp_path / name).write_bytes(gzip.compress(b"{}"))
    test = page("time", tmp_path, monkeypatch, store="s.db")
    assert not test.exception
    assert "ui.perfetto.dev" in words(test)


def test_no_cell_of_a_csv_is_a_formula() -> None:
    frame = pd.DataFrame(
        {
            "model": ["=cmd|' /C calc'!A0", "fine"],
            "num_visual": [-1, 2],
            "=HYPERLINK(1)": [1.5, 2.5],
        }
    )
    lines = csv_of(frame).decode().splitlines()
    assert lines == [
        '"model","num_visual","\'=HYPERLINK(1)"',
        "\"'=cmd|' /C calc'!A0\",-1,1.5",
        '"fine",2,2.5',
    ]
