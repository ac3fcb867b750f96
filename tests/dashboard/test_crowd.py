"""A store of many systems on the page of growth: few lines, all bars, by group."""

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests import golden
from tests.dashboard.test_pages import page, words
from workbench.dashboard.crowd import MOST_LINES
from workbench.store import Store
from workbench.vocabulary.systems import entries

SIZES = (256, 1024, 4096, 16384)
SECONDS = {"s_attn": 4.0, "d_attn": 2.0, "saisa": 0.5}


def seconds(attention: str, kernel: str, size: int) -> float:
    slower = 3.0 if kernel == "eager" else 1.0
    return SECONDS.get(attention, 3.0) * slower * size / SIZES[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every system under two kernels, and S-Attn behind every reducer, predicted."""
    folder = tmp_path_factory.mktemp("many")
    systems = [(name, None) for name in entries()["attention"]]
    systems += [("s_attn", name) for name in entries()["reduce"]]
    made = [
        golden.record(
            "predicted",
            "h100-80gb",
            attention=attention,
            kernel=kernel,
            num_visual=size,
            logits="text",
            scope="lvlm",
            reduce=reducer,
        )
        for attention, reducer in systems
        for kernel in ("eager", "sdpa")
        for size in SIZES
    ]
    for each in made:
        cell = each.cell
        each.metrics["time_s"] = seconds(cell.attention, cell.kernel, cell.num_visual)
    with Store.open(folder / "many.db", mode="w") as store:
        store.add_many(store.begin_run("s", {}, golden.LAPTOP), made)
    return folder


def charts(test: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in test.get("plotly_chart")]


def lines(figure: dict) -> set[str]:
    own = {t["legendgroup"] for t in figure["data"] if t.get("legendgroup")}
    return {name for name in own if " · " in name}


def test_few_are_lines_and_all_are_bars(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = page("scaling", folder, monkeypatch)
    assert not test.exception
    first, bars = charts(test)
    assert len(lines(first)) == MOST_LINES
    assert {"S-Attn · eager", "S-Attn · sdpa", "D-Attn · sdpa", "SAISA · sdpa"} <= lines(first)
    named = [name for trace in bars["data"] if trace["xaxis"] == "x1" for name in trace["y"]]
    systems = len(entries()["attention"]) + len(entries()["reduce"])
    assert len(named) == len(set(named)) == systems + 1  # Both kernels of S-Attn.
    assert {trace["name"] for trace in bars["data"]} == {"exact", "approximate", "reducers"}
    said = f"SAISA · sdpa is the quickest of {systems + 1} at \\|V\\| = 16,384: 500 ms, 8"
    assert said in words(test)


@pytest.mark.parametrize("group", ["exact", "reducers"])
def test_a_group_holds_its_systems_and_the_baselines(
    group: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = page("scaling", folder, monkeypatch, group=group)
    assert not test.exception
    offered = test.get_by_key("systems").options
    assert "S-Attn · sdpa" in offered
    assert ("S-Attn · sdpa · ToMe" in offered) == (group == "reducers")
    assert "SAISA · sdpa" not in offered
