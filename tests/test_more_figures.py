"""Thresholds, memory, agreement and roofline show what the frame says."""

import json
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from tests import golden
from workbench.analysis import fit, limits
from workbench.figures import (
    DARK,
    LIGHT,
    SCALING_METRICS,
    Axes,
    Ceilings,
    Crossing,
    Reading,
    Theme,
    agreement,
    memory,
    multiples,
    placed,
    roofline,
    scaling,
    spent,
    thresholds,
)
from workbench.store import RunInfo, Store
from workbench.telling.ceilings import ceilings
from workbench.telling.spent import spent_of
from workbench.telling.validation import both_sources
from workbench.telling.view import (
    CAPACITIES,
    Details,
    all_looks,
    capacities,
    identities,
    memory_kinds,
    newest_of_each,
    prepared,
)

GIB = 2.0**30


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, list[RunInfo], Details]:
    path: Path = tmp_path_factory.mktemp("golden") / "s.db"
    with Store.open(golden.build(path, "like_default")) as store:
        frame = newest_of_each(prepared(store.frame(details=CAPACITIES)))
        return frame[frame["pass"] == "forward"], store.runs(), Details(path)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_plotly_accepts_every_kind_of_figure(held, theme: Theme) -> None:
    """They are built unchecked; a wrong property is a ValueError here."""
    frame, runs, details = held
    marks, curves, near = all_looks(frame), fit(frame, SCALING_METRICS)[1], capacities(frame, runs)
    here = frame[frame["source"] == "predicted"]
    told = [
        spent_of(r).assign(system=r.cell.attention)
        for r in details.some(identities(here.head(9))).values()
    ]
    ring = Crossing("time_s", "D-Attn · sdpa", "predicted", "h100-80gb", "S-Attn · sdpa", 900.0)
    for figure in (
        scaling(frame, curves, marks, theme, capacities=near, crossings=[ring]),
        scaling(frame, curves, marks, theme, ("flops",), Axes(False, False), near),
        multiples(frame, curves, marks, theme, "time_s", reading=Reading("images", 729)),
        thresholds(limits(frame), marks, theme),
        memory(memory_kinds(frame, details), near, theme),
        agreement(both_sources(frame), marks, theme, "ratio", 0.02),
        roofline(here, marks, theme, [Ceilings("measured", 1e15, 2e12)]),
        spent(pd.concat(told), theme, share=True),
    ):
        assert figure.data
        checked = go.Figure(figure.to_dict())
        assert json.loads(checked.to_json()) == json.loads(figure.to_json())


def test_a_bracket_runs_from_the_last_that_ran_to_the_first_that_did_not(held) -> None:
    frame = held[0]
    figure = thresholds(limits(frame), all_looks(frame), LIGHT)
    bars = {t.y[0]: list(t.x) for t in figure.data if t.mode == "lines"}
    assert bars == {
        "S-Attn · eager  <i>measured, cpu</i>": [4096, 8192],
        "S-Attn · eager  <i>predicted, h100-80gb</i>": [16384, 65536],
    }
    arrows = [t for t in figure.data if t.mode != "lines" and t.marker.symbol == "triangle-right"]
    assert sorted(t.x[0] for t in arrows) == [8192, 8192, 131072, 131072]
    rows = list(figure.layout.yaxis.categoryarray)[::-1]
    # The furthest of a place stands on top, and a CPU below every card.
    assert rows[0].startswith("S-Attn · sdpa  <i>predicted")
    assert rows[3].startswith("S-Attn · sdpa  <i>measured")
    assert rows[5].startswith("S-Attn · eager  <i>measured")


def test_capacities_are_those_of_the_records(held) -> None:
    assert capacities(*held[:2]) == {
        "cpu": golden.LIMIT["cpu"],
        "h100-80gb": golden.LIMIT["h100-80gb"],
    }
    frame, runs, _ = held
    # Without details the device entry stands, and a CPU's limit is not known.
    untold = frame.assign(**dict.fromkeys(CAPACITIES, float("nan")))
    predicted = untold[untold["source"] == "predicted"]
    assert capacities(predicted, runs)["h100-80gb"] > 78 * GIB
    assert capacities(untold[untold["source"] == "measured"], runs) == {}


def test_the_stack_adds_up_to_the_peak(held) -> None:
    frame, runs, details = held
    rows = frame[(frame["attention"] == "d_attn")]
    kinds = memory_kinds(rows, details)
    total = kinds.groupby(["source", "num_visual"])["bytes"].sum()
    peaks = rows.groupby(["source", "num_visual"])["peak_bytes"].sum()
    assert total.to_dict() == pytest.approx(peaks.to_dict())
    figure = memory(kinds, capacities(frame, runs), LIGHT)
    assert len({t.xaxis for t in figure.data}) == 2
    shown = sum(t.y[-1] for t in figure.data if t.xaxis == "x2" and len(t.y))
    assert shown == pytest.approx(rows[rows["source"] == "predicted"]["peak_bytes"].max() / GIB)


def test_a_single_size_is_seen_too(held) -> None:
    frame, _, details = held
    rows = frame[(frame["attention"] == "d_attn") & (frame["num_visual"] == 64)]
    for trace in memory(memory_kinds(rows, details), {}, LIGHT).data:
        assert trace.x[0] < 64 < trace.x[-1]
        assert trace.customdata[0].endswith("|V| = 64")


def test_panels_share_one_range_of_visual_tokens(held) -> None:
    """A system that goes further is seen to go further."""
    frame, _, details = held
    kinds = memory_kinds(frame[frame["source"] == "predicted"], details)
    shorter = kinds[(kinds["system"] != "S-Attn · eager") | (kinds["num_visual"] <= 256)]
    axes = memory(shorter, {}, LIGHT, log_x=False).to_dict()["layout"]
    ranges = {tuple(axis["range"]) for name, axis in axes.items() if name.startswith("xaxis")}
    assert len(ranges) == 1


def test_memory_ends_soon_after_the_card_does(held) -> None:
    frame, runs, details = held
    rows = frame[(frame["series"] == "S-Attn · eager") & (frame["source"] == "predicted")]
    figure = memory(memory_kinds(rows, details), capacities(rows, runs), LIGHT)
    assert figure.layout.yaxis.range[1] == pytest.approx(1.6 * 78)
    assert "capacity 78.0 GiB" in [a.text for a in figure.layout.annotations]


def test_agreement_compares_cells_that_have_both(held) -> None:
    frame = held[0]
    pairs = both_sources(frame)
    # Bytes and FLOPs depend on shapes alone; seconds on a CPU say nothing of an H100.
    assert set(pairs["metric"]) == {"flops", "peak_bytes"}
    assert pairs["ratio"].to_numpy() == pytest.approx(1.0)
    assert set(pairs["num_visual"]) == {256, 1024, 4096}
    figure = agreement(pairs, all_looks(frame), LIGHT, "predicted over measured", 0.02)
    assert sum(len(t.x) for t in figure.data) == len(pairs)


def test_seconds_are_compared_where_the_card_is_the_same() -> None:
    cells = {"num_visual": 256, "attention": "d_attn"}
    rows = []
    for record, device in (
        (golden.record("measured", "NVIDIA H200", **cells), "NVIDIA H200"),
        (golden.record("predicted", "h100-80gb", **cells), "h200-141gb"),
    ):
        rows.append(
            {
                "key": record.cell.key,
                "source": record.source,
                "device": device,
                "status": "ok",
                "series": "s",
                "num_visual": 256,
                **dict.fromkeys(("time_q1_s", "time_q3_s")),
                **record.metrics,
            }
        )
    pairs = both_sources(pd.DataFrame(rows)).set_index("metric")
    row = pairs.loc["time_s"]
    assert row["low"] < row["ratio"] < row["high"]


def test_roofline_counts_what_the_kernel_does(held) -> None:
    frame = held[0]
    rows = frame[frame["source"] == "predicted"].assign(flops_causal=lambda f: f["flops"] / 2)
    figure = roofline(rows, all_looks(frame), LIGHT, [Ceilings("datasheet", 1e15, 2e12)])
    by_name = {t.name: t for t in figure.data}
    for name, share in (("S-Attn · eager", 1.0), ("S-Attn · sdpa", 0.5)):
        own = rows[rows["series"] == name].sort_values("num_visual")
        expected = share * own["flops"] / own["time_s"] / 1e12
        assert list(by_name[name].y) == pytest.approx(list(expected))
    (roof,) = [t for t in figure.data if t.mode == "lines"]
    assert list(roof.y)[1:] == [1000.0, 1000.0]
    assert roof.x[1] == pytest.approx(500)


def test_what_was_measured_stands_beside_the_datasheet(held) -> None:
    rows = (
        held[0]
        .head(3)
        .assign(
            device="NVIDIA H100 80GB HBM3",
            source="measured",
            dtype="bfloat16",
            ceiling_flops_s=7e14,
            ceiling_bytes_s=3e12,
        )
    )
    lines, words, sources = ceilings(rows)
    assert [line.name for line in lines] == ["datasheet", "measured"]
    assert lines[1][1:] == (7e14, 3e12)
    assert "large bfloat16 matmul" in words
    assert "http" in sources
    assert "http" not in words
    lines, words, _ = ceilings(rows.assign(device="cpu", ceiling_flops_s=None))
    assert lines == []
    assert words == "No datasheet gives ceilings for cpu in bfloat16."


def test_a_cell_without_work_or_time_has_no_place_on_a_roofline(held) -> None:
    frame = held[0]
    rows = frame[(frame["source"] == "predicted") & (frame["time_s"] > 0)]
    assert len(placed(rows)) == len(rows) > 0
    for column in ("time_s", "bytes_moved"):
        assert placed(rows.assign(**{column: 0.0})).empty
    assert placed(rows.assign(flops=0.0, flops_causal=0.0)).empty
    assert placed(rows.assign(flops=float("nan"), flops_causal=float("nan"))).empty
