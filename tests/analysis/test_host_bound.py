"""Cells whose card waited for the host: out of fits and headlines, hollow in figures."""

import pandas as pd
import pytest

from workbench.analysis import depends_on_time, fit, headline, host_bound
from workbench.aspects.seconds import _seconds
from workbench.figures import LIGHT, looks, scaling
from workbench.store import Store
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.record import Record

SIZES = (256, 1024, 4096, 16_384, 65_536)
WAITING = ("host_bound: the card was busy for 43% of an iteration", "energy_j: no")


@pytest.fixture
def frame(tmp_path) -> pd.DataFrame:
    """Two systems on a card; the first two sizes of each take the host's 2 ms."""
    with Store.open(tmp_path / "card.db", "w") as store:
        run = store.begin_run("card", {}, Record.model_fields["environment"].default)
        for attention, slope in (("s_attn", 2e-6), ("d_attn", 1e-6)):
            for size in SIZES:
                waits = size <= 1024
                record = Record(
                    cell=make_cell(num_visual=size, attention=attention, kernel="flash"),
                    source="measured",
                    device="NVIDIA H100 80GB HBM3",
                    status="ok",
                    metrics={
                        "time_s": 2e-3 if waits else slope * size,
                        "peak_bytes": 10**9 + size,
                        "flops": 10**12 + size,
                        "mfu": 0.5,
                    },
                    samples={"time_s": [2e-3 if waits else slope * size]},
                    flags=list(WAITING if waits else ()),
                )
                store.add(run, record)
        return store.frame()


def test_metrics_that_are_made_of_a_whole_iteration_s_seconds():
    timed = {name for name in METRICS if depends_on_time(name)}
    assert {"time_s", "forward_s", "mfu", "achieved_flops_s", "tokens_per_s"} <= timed
    assert not timed & {"device_time_s", "prepare_s", "peak_bytes", "ceiling_flops_s", "flops"}
    assert not depends_on_time("of nobody")


def test_fits_leave_their_seconds_out_and_keep_their_bytes(frame):
    fits, curves = fit(frame, ["time_s", "peak_bytes"])
    points = fits.set_index(["attention", "metric"])["num_points"]
    assert points["s_attn", "time_s"] == points["d_attn", "time_s"] == 3
    assert points["s_attn", "peak_bytes"] == 5
    seconds = curves[curves["metric"] == "time_s"]
    assert seconds["num_visual"].min() == 4096
    # 2 ms at 256 and 1,024 would have bent the line through them.
    assert fits.loc[fits["metric"] == "time_s", "a"].abs().max() < 1e-9


def test_a_headline_compares_where_both_tell_of_their_method(frame):
    small = frame[frame["num_visual"] <= 4096]
    (row,) = headline(small)[lambda t: t["metric"] == "time_s"].to_dict("records")
    assert (row["num_visual"], row["ratio"]) == (4096, pytest.approx(2.0))
    none = headline(frame[frame["num_visual"] <= 1024])
    assert none.loc[none["metric"] == "time_s", "ratio"].isna().all()
    assert none.loc[none["metric"] == "peak_bytes", "ratio"].notna().all()


def test_figures_draw_them_hollow_in_time_alone(frame):
    rows = frame.assign(series=frame["attention"])
    names = looks((a, a, "flash") for a in rows["attention"].unique())
    figure = scaling(
        rows,
        fit(rows, ["time_s", "peak_bytes"])[1],
        names,
        LIGHT,
        metrics=("time_s", "peak_bytes"),
    )
    points = [t for t in figure.data if t.mode and "markers" in t.mode and len(t.x) == 5]
    seconds = [t for t in points if t.xaxis in (None, "x")]
    for trace in seconds:
        assert [s.endswith("-open") for s in trace.marker.symbol] == [True, True, *[False] * 3]
        assert "waited for the host" in trace.customdata[0]
        assert "waited for the host" not in trace.customdata[2]
    assert len(seconds) == 2
    assert all(isinstance(t.marker.symbol, str) for t in points if t.xaxis == "x2")
    assert "seconds of the host" in [t.name for t in figure.data]


def test_a_report_says_whose_seconds_they_are(frame):
    rows = frame.assign(series=frame["attention"])
    short = {name: name for name in rows["series"]}
    table = _seconds(rows, "on a card", short)
    assert table.rows[0] == ("256", "2 ms (h, 1)", "2 ms (h, 1)")
    assert "(h" not in table.rows[-1][1]
    assert "h: host-bound, the host's pace or other fixed costs" in table.note
    assert "1: timed only so many times" in table.note
    assert "(h" not in str(_seconds(rows[rows["num_visual"] > 1024], "on a card", short))


def test_a_card_that_does_not_say_whether_it_was_busy_is_found_out_by_its_seconds(frame):
    work = frame["num_visual"] * 1e9
    flat = frame.assign(flags=[()] * len(frame), flops=work, busy_share=float("nan"))
    assert list(host_bound(flat)) == list(frame["num_visual"] <= 256)
    # Who says that the card was busy is believed, and a CPU has no host to wait for.
    assert not host_bound(flat.assign(busy_share=0.99)).any()
    assert not host_bound(flat.assign(device="cpu")).any()
    # Where the last pair does not grow either, nothing of the line tells of the method.
    level = flat.assign(time_s=[2e-3 - 1e-5 * i for i in range(5)] * 2)
    assert host_bound(level).all()


def test_who_is_faster_where_is_kept_and_marked(frame):
    table = headline(frame)[lambda t: t["metric"] == "time_s"]
    (row,) = table.to_dict("records")
    assert row["won"] == (4096, 16_384, 65_536)
    assert row["lost"] == (256, 1024)
    assert row["waits"] == (256, 1024)


def test_a_frame_without_flags_has_none():
    assert not host_bound(pd.DataFrame({"num_visual": [1, 2]})).any()
