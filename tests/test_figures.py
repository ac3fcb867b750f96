"""Figures hold the numbers, in units, and each code (colour, shape, stroke) means one thing."""

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from tests import golden
from workbench.analysis import fit
from workbench.figures import (
    DARK,
    LIGHT,
    SCALING_METRICS,
    Axes,
    Crossing,
    Reading,
    in_order,
    looks,
    multiples,
    scaling,
)
from workbench.figures.hover import hover
from workbench.figures.line_ends import LINE_END, Room, Stroke, line_ends
from workbench.figures.narrow import for_phone, for_tablet, num_columns
from workbench.figures.style import COLORS, SPARE
from workbench.store import Store
from workbench.telling.view import all_looks, prepared

GIB = 2.0**30


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("golden")
    found = {}
    for kind in ("like_default", "all_statuses", "one_cell", "hostile"):
        with Store.open(golden.build(folder / f"{kind}.db", kind)) as store:
            found[kind] = prepared(store.frame())
    return found


def drawn(frame: pd.DataFrame, **more: Any) -> go.Figure:
    curves = fit(frame, SCALING_METRICS)[1]
    return scaling(frame, curves, all_looks(frame), more.pop("theme", LIGHT), **more)


def traces(figure: go.Figure, column: int, mode: str) -> list[go.Scatter]:
    axis = "x" if column == 1 else f"x{column}"
    return [t for t in figure.data if t.xaxis == axis and t.mode == mode and t.x[0] is not None]


def forward(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    frame = frames["like_default"]
    return frame[frame["pass"] == "forward"]


def test_every_value_is_drawn_once_in_the_axis_unit(frames: dict[str, pd.DataFrame]) -> None:
    frame = forward(frames)
    figure = drawn(frame)
    for column, (metric, base) in enumerate(
        zip(SCALING_METRICS, (1e12, GIB, 1.0), strict=True), start=1
    ):
        points = [t for t in traces(figure, column, "markers") if "x" not in t.marker.symbol]
        values = sorted(value for trace in points for value in trace.y)
        assert values == pytest.approx(sorted(frame[metric].dropna() / base))


def test_measured_and_predicted_differ_in_fill_and_stroke(
    frames: dict[str, pd.DataFrame],
) -> None:
    frame = forward(frames)
    for source, hollow, dash in (("measured", False, "solid"), ("predicted", True, "dash")):
        figure = drawn(frame[frame["source"] == source])
        lines = [t for t in traces(figure, 3, "lines") if t.fill is None]
        assert {t.line.dash for t in lines} == {dash}
        points = [t for t in traces(figure, 3, "markers") if not t.marker.symbol.startswith("x")]
        assert {t.marker.symbol.endswith("-open") for t in points} == {hollow}


def test_two_devices_of_one_source_have_strokes_of_their_own() -> None:
    cells = [
        golden.record("predicted", device, num_visual=v)
        for device in ("h100-80gb", "cpu")
        for v in (256, 512, 1024, 2048)
    ]
    figure = drawn(frame_of(cells))
    lines = [t.line.dash for t in traces(figure, 1, "lines") if t.fill is None]
    assert sorted(lines) == ["dash", "dot"]


def frame_of(records: list[Any]) -> pd.DataFrame:
    rows = [
        {
            "run": "r",
            "key": r.cell.key,
            "source": r.source,
            "device": r.device,
            "error": r.error,
            "status": str(r.status),
            "flags": tuple(r.flags),
            **r.cell.document(),
            **dict.fromkeys(("time_q1_s", "time_q3_s", "num_samples")),
            **r.metrics,
        }
        for r in records
    ]
    return prepared(pd.DataFrame(rows))


def test_quartiles_are_the_error_bars(frames: dict[str, pd.DataFrame]) -> None:
    frame = forward(frames)
    frame = frame[(frame["source"] == "measured") & (frame["attention"] == "d_attn")]
    (points,) = traces(drawn(frame), 3, "markers")
    rows = frame.sort_values("num_visual")
    low = [y - d for y, d in zip(points.y, points.error_y.arrayminus, strict=True)]
    high = [y + d for y, d in zip(points.y, points.error_y.array, strict=True)]
    assert low == pytest.approx(list(rows["time_q1_s"]))
    assert high == pytest.approx(list(rows["time_q3_s"]))


@pytest.mark.parametrize("axes", [Axes(), Axes(log_x=False, log_y=False)])
def test_a_measured_failure_stands_above_every_value_and_inside_the_axis(
    frames: dict[str, pd.DataFrame], axes: Axes
) -> None:
    frame = frames["all_statuses"]
    figure = drawn(frame, axes=axes)
    end = figure.layout.yaxis.range[1]
    end = 10**end if axes.log_y else end
    failed = {t.marker.symbol: t for t in traces(figure, 1, "markers") if t.cliponaxis is False}
    assert set(failed) == {"x", "triangle-down", "hourglass", "star-diamond"}
    for trace in failed.values():
        assert frame["flops"].max() / 1e12 < trace.y[0] < end
    assert [t.x[0] for t in failed.values()] == [8192, 9216, 10240, 11264]
    assert "killed" in failed["triangle-down"].customdata[0]
    assert "signal 9" in failed["triangle-down"].customdata[0]


def test_a_predicted_oom_is_crossed_at_its_value(frames: dict[str, pd.DataFrame]) -> None:
    frame = forward(frames)
    beyond = frame[(frame["source"] == "predicted") & (frame["status"] == "oom")]
    (crosses,) = [t for t in traces(drawn(frame), 2, "markers") if t.marker.symbol == "x-thin"]
    assert list(crosses.x) == sorted(beyond["num_visual"])
    assert list(crosses.y) == pytest.approx(sorted(beyond["peak_bytes"] / GIB))


def test_the_band_encloses_its_line(frames: dict[str, pd.DataFrame]) -> None:
    frame = forward(frames)
    figure = drawn(frame[(frame["source"] == "measured") & (frame["attention"] == "d_attn")])
    band, line = traces(figure, 3, "lines")
    assert band.fill == "toself"
    half = len(band.x) // 2
    upper, lower = band.y[:half], band.y[half:][::-1]
    for low, middle, high in zip(lower, line.y, upper, strict=True):
        assert low < middle < high


def test_the_capacity_is_drawn_where_it_is_near(frames: dict[str, pd.DataFrame]) -> None:
    frame = forward(frames)

    def words(**capacities: int) -> list[str]:
        named = {name.replace("_", "-"): value for name, value in capacities.items()}
        found = drawn(frame, capacities=named).layout.annotations
        return [a.text for a in found if "capacity" in a.text]

    assert words(h100_80gb=int(78.6 * GIB)) == ["capacity 78.6 GiB"]
    assert words(h100_80gb=10**18) == []


def test_the_highest_capacity_leaves_the_words_of_the_strip_alone(
    frames: dict[str, pd.DataFrame],
) -> None:
    failed = frames["all_statuses"]
    (label,) = [
        a
        for a in drawn(failed, capacities={"cpu": 12 * GIB}).layout.annotations
        if "capacity" in a.text
    ]
    assert label.yanchor == "top"


def test_capacities_that_nearly_agree_have_their_words_together(
    frames: dict[str, pd.DataFrame],
) -> None:
    near = {"cpu": 75 * 2**30, "h100-80gb": 76 * 2**30}
    notes = [a.text for a in drawn(forward(frames), capacities=near).layout.annotations]
    assert "capacity 75.0 to 76.0 GiB" in notes
    assert not [note for note in notes if "has" in note]
    far = {"cpu": 8 * 2**30, "h100-80gb": 76 * 2**30}
    notes = [a.text for a in drawn(forward(frames), capacities=far).layout.annotations]
    assert {"cpu has 8.0 GiB", "h100-80gb has 76.0 GiB"} <= {*notes}


def test_hover_tells_the_cell_and_the_samples(frames: dict[str, pd.DataFrame]) -> None:
    frame = forward(frames)
    measured = frame[(frame["source"] == "measured") & (frame["attention"] == "d_attn")]
    (points,) = traces(drawn(measured), 3, "markers")
    text = points.customdata[0]
    for words in (
        "D-Attn · sdpa",
        "|V| = 64, |T| = 64, batch 1",
        "measured on cpu",
        "mistral-7b-v0.3, layer, forward, bfloat16",
        "median of 3 samples",
    ):
        assert words in text


def test_hover_tells_what_a_predicted_time_rests_on(frames: dict[str, pd.DataFrame]) -> None:
    frame = forward(frames)
    row = frame[frame["source"] == "predicted"].iloc[0].to_dict()
    row |= {"series": "s", "flags": ("calibrated: h200-141gb, 32 records", "modelled: x")}
    assert "fitted to measurements: h200-141gb" in hover(row, "time_s")
    assert "modelled" not in hover(row, "time_s")
    assert "calibrated" not in hover(row, "peak_bytes")


def test_names_from_a_store_are_text(frames: dict[str, pd.DataFrame]) -> None:
    figure = drawn(frames["hostile"])
    everything = [t.name for t in figure.data if t.name] + [
        text for t in figure.data if t.customdata is not None for text in t.customdata
    ]
    assert all("<script" not in text and "<b>&amp;" not in text for text in everything)
    assert any("&lt;script&gt;" in text for text in everything)
    # plotly fills templates once: braces in a name are data, never a template.
    assert {t.hovertemplate for t in figure.data if t.hovertemplate} == {
        "%{customdata}<extra></extra>"
    }


def test_no_two_series_look_alike_and_filters_change_nothing() -> None:
    systems = ["s_attn", "d_attn", "himix", "d_attn_sum", "d_attn_tanh", "d_attn_biased"]
    kernels = ["eager", "sdpa", "flash", "flex", "cudnn"]
    series = [(f"{a} {k}", a, k) for a in systems for k in kernels]
    found = looks(series)
    assert len(set(found.values())) == len(series)
    assert looks(reversed(series)) == found
    assert found["s_attn sdpa"].color == "#D55E00"
    assert found["d_attn sdpa"].color == "#0072B2"


def test_baselines_come_first(frames: dict[str, pd.DataFrame]) -> None:
    assert in_order(frames["like_default"]) == [
        "S-Attn · eager",
        "S-Attn · sdpa",
        "D-Attn · sdpa",
    ]


def test_one_point_is_enough_for_a_figure(frames: dict[str, pd.DataFrame]) -> None:
    figure = drawn(frames["one_cell"], theme=DARK, metrics=("time_s",))
    (points,) = [t for t in figure.data if t.x[0] is not None]
    assert points.x == (256,)
    assert figure.layout.font.color == DARK.ink


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two colours."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_words_are_legible_on_their_ground(theme: Any) -> None:
    assert contrast(theme.ink, theme.paper) > 7
    assert contrast(theme.muted, theme.paper) > 4.5
    for color in ("#D55E00", "#0072B2", "#009E73"):
        assert contrast(theme.shown(color), theme.paper) > 3
    for color in (*COLORS.values(), *SPARE):
        assert contrast(theme.words(theme.shown(color)), theme.paper) >= 4.5


def test_the_axis_reads_in_images_while_points_stay_where_they_are(
    frames: dict[str, pd.DataFrame],
) -> None:
    images = Reading("images", 729.0)
    rows = forward(frames)
    plain_, read = drawn(rows), drawn(rows, reading=images)
    assert read.layout.xaxis.title.text == "images"
    assert read.layout.xaxis.range == plain_.layout.xaxis.range
    at = dict(zip(read.layout.xaxis.ticktext, read.layout.xaxis.tickvals, strict=True))
    assert {at[words] / float(words) for words in at} == {729.0}
    linear = drawn(rows, axes=Axes(log_x=False), reading=images).layout.xaxis
    assert [float(t.replace(",", "")) * 729 for t in linear.ticktext] == list(linear.tickvals)


def test_small_multiples_have_a_panel_a_model(frames: dict[str, pd.DataFrame]) -> None:
    rows = forward(frames)
    models = [rows.assign(model=name) for name in ("a", "b", "c", "d")]
    whole = pd.concat(models, ignore_index=True)
    _, curves = fit(whole, ["time_s"])
    figure = multiples(whole, curves, all_looks(whole), LIGHT, "time_s")
    titles = [a.text for a in figure.layout.annotations]
    assert [f"<b>{name}</b>" in titles for name in "abcd"] == [True] * 4
    # Three in the first row, the fourth below it.
    assert figure.layout.yaxis4.domain[1] < figure.layout.yaxis.domain[0]
    dashes = {t.line.dash for t in figure.data if t.mode == "lines" and t.xaxis == "x2"}
    assert dashes == {t.line.dash for t in figure.data if t.mode == "lines" and t.xaxis == "x"}


def test_a_crossing_is_ringed_on_the_curve(frames: dict[str, pd.DataFrame]) -> None:
    rows = forward(frames)
    rows = rows[rows["source"] == "predicted"]
    one = rows["series"].iloc[0]
    crossing = Crossing("time_s", one, "predicted", "h100-80gb", "S-Attn · eager", 5_000.0)
    (ring,) = [
        t for t in drawn(rows, crossings=[crossing]).data if t.name == "curves cross" and t.y[0]
    ]
    assert ring.x[0] == 5_000
    assert ring.y[0] > 0
    assert "from |V| = 5,000 on" in ring.customdata[0]


def test_a_phone_gets_panels_below_one_another(frames: dict[str, pd.DataFrame]) -> None:
    wide = drawn(forward(frames))
    assert num_columns(wide) == 3
    narrow = for_phone(wide)
    assert num_columns(narrow) == 1
    assert len(narrow.data) == len(wide.data)
    names = ("yaxis", "yaxis2", "yaxis3")
    upper, middle, lower = (narrow.layout[name].domain for name in names)
    assert upper[0] > middle[1] > middle[0] > lower[1]
    assert narrow.layout.height > 2 * wide.layout.height
    assert num_columns(wide) == 3


def test_names_stand_at_line_ends_and_cover_nothing(frames: dict[str, pd.DataFrame]) -> None:
    figure = drawn(forward(frames), metrics=("time_s",))
    notes = [note for note in figure.layout.annotations if note.name == LINE_END]
    assert {note.text for note in notes} <= set(in_order(forward(frames)))
    assert notes
    (lowest, highest), (left, right) = figure.layout.yaxis.range, figure.layout.xaxis.range
    for note in notes:
        own = [t for t in figure.data if t.name == note.text and t.x[0] is not None]
        assert note.x == pytest.approx(max(math.log10(x) for trace in own for x in trace.x))
        assert lowest <= note.y <= highest
        assert left <= note.x <= right
    for narrower in (for_phone(figure), for_tablet(drawn(forward(frames)))):
        assert LINE_END not in [note.name for note in narrower.layout.annotations]
        assert narrower.layout.margin.r == 16
    assert LINE_END in [note.name for note in for_tablet(figure).layout.annotations]


def test_a_name_moves_away_from_what_it_would_cover() -> None:
    room = Room("x", "y", 400, 300)
    flat = Stroke([(0.0, 0.5), (0.5, 0.5)], "first", "#0072B2")
    near = Stroke([(0.0, 0.49), (0.5, 0.49)], "second", "#D55E00")
    first, second = line_ends([flat, near], room, LIGHT).notes
    assert (first.get("ay"), second["ay"]) == (None, 15)  # Below it, with a line to its end.
    wall = [Stroke([(x, 0.0), (x, 1.0)]) for x in (0.45, 0.55, 0.72, 0.85, 0.99)]
    assert line_ends([flat, *wall], room, LIGHT).notes == []
    # Where others lie around a line's end, its name stands farther off, or on the other side.
    beside = [Stroke([(0.2, y / 20), (0.6, y / 20)]) for y in range(1, 20)]
    (far,) = line_ends([flat, *beside], Room("x", "y", 600, 300), LIGHT).notes
    assert far["ax"] > 100
    assert far["showarrow"]
    rising = Stroke([(0.0, 0.0), (1.0, 0.9)], "at the edge", "#0072B2")
    (left,) = line_ends([rising], Room("x", "y", 400, 300, 1.0, 0.0), LIGHT).notes
    assert (left["xanchor"], left["ax"]) == ("right", -9)
    assert left["ay"] <= 0  # Above its line.
    many = [flat._replace(name=f"name {i}") for i in range(10)]
    assert line_ends(many, room, LIGHT).notes == []
    long = flat._replace(points=[(0.0, 0.5), (1.0, 0.5)], name="D-Attn · flash · chunk")
    assert line_ends([long], room, LIGHT).notes[0]["xanchor"] == "right"
    assert line_ends([long._replace(name="D-Attn · flash")], room, LIGHT).margin > 100


def test_long_words_stand_on_two_lines_of_a_phone() -> None:
    name = "D-Attn · flash · offload · chunk 8,192 · checkpoint every 2"
    wide = go.Figure(
        go.Scatter(name=name),
        {"annotations": [{"text": f"{name}   <b>1,000,000 and more</b>"}]},
    )
    narrow = for_phone(wide)
    assert narrow.data[0].name == "D-Attn · flash · offload · chunk 8,192 ·<br>checkpoint every 2"
    assert narrow.layout.annotations[0].text == f"{name}<br><b>1,000,000 and more</b>"
    assert wide.data[0].name == name
