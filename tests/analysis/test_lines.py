"""Lines, limits, headline ratios: from real stores, checked against what was put in."""

from pathlib import Path

import pandas as pd
import pytest

from tests import golden
from workbench.analysis import (
    CONDITIONS,
    SUBJECT,
    fit,
    headline,
    kinds,
    limits,
    series_label,
    series_name,
)
from workbench.analysis.series import LINE, SYSTEM, with_series
from workbench.store import Store
from workbench.telling.words import setting
from workbench.vocabulary.cell import FIELDS, make_cell
from workbench.vocabulary.record import Record, Status


def frame_of(path: Path, *records: Record) -> pd.DataFrame:
    with Store.open(path / "s.db", "w") as store:
        run = store.begin_run("demo", {}, golden.LAPTOP)
        store.add_many(run, records)
        return store.frame()


def timed(seconds: float, samples: list[float] | None = None, **cell: object) -> Record:
    return Record(
        cell=make_cell(**cell),
        source="measured",
        device="cpu",
        status=Status.OK,
        metrics={"time_s": seconds, "peak_bytes": 100},
        samples={"time_s": samples or []},
    )


@pytest.fixture
def default(tmp_path: Path) -> pd.DataFrame:
    with Store.open(golden.build(tmp_path / "s.db", "like_default")) as store:
        return store.frame()


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ({"kernel": "eager"}, "S-Attn · eager"),
        ({"attention": "d_attn", "fold": True}, "D-Attn · sdpa · fold"),
        ({"attention": "d_attn_sum", "chunk": 4096}, "D-Attn sum · sdpa · chunk 4,096"),
        ({"attention": "himix", "kernel": "flex"}, "HiMix · flex"),
        (
            {"attention": "s_attn", "checkpoint": True, "checkpoint_every": 4, "tiled": True},
            "S-Attn · sdpa · tiled · checkpoint · checkpoint every 4",
        ),
        ({"attention": "of_tomorrow"}, "of_tomorrow · sdpa"),
        ({"attention": "d_attnx"}, "d_attnx · sdpa"),
    ],
)
def test_series_names(cell: dict, name: str, tmp_path: Path) -> None:
    frame = frame_of(tmp_path, timed(1.0, num_visual=64, **cell), timed(1.0, num_visual=65))
    assert series_name(frame.iloc[0]) == name
    assert list(series_label(frame)) == [name, "S-Attn · sdpa"]


def test_cells_that_differ_in_any_option_are_lines_of_their_own(tmp_path: Path) -> None:
    cells = [
        {},
        {"fold": True},
        {"chunk": 64},
        {"num_text": 1},
        {"batch": 2},
        {"dtype": "float32"},
        {"model": "gemma-2-9b"},
        {"pass": "train"},
        {"layer": 1},
        {"memory_cap": 2**70},
        {"memory_cap": "h100-80gb"},
    ]
    records = [timed(1.0 + v, num_visual=v, **cell) for cell in cells for v in (64, 128, 256)]
    fits, curves = fit(frame_of(tmp_path, *records), ["time_s"])
    assert list(fits["num_points"]) == [3] * len(cells)
    assert list(fits["b"]) == pytest.approx([1.0] * len(cells))
    columns = list(fits.columns[: fits.columns.get_loc("metric") + 1])
    assert len(curves.drop_duplicates(columns)) == len(cells)


def test_fits_of_a_store_recover_the_closed_form(default: pd.DataFrame) -> None:
    fits, curves = fit(default, ["flops", "peak_bytes"])
    flops = fits[(fits["metric"] == "flops") & (fits["pass"] == "forward")]
    for row in flops.itertuples():
        quadratic = row.attention == "s_attn"
        assert row.shape == ("quadratic" if quadratic else "linear")
        assert row.c == pytest.approx(16_384 if quadratic else 0, rel=1e-6, abs=1e-6)
        assert row.a == pytest.approx(436_207_616 * 64 + 16_384 * 64**2, rel=1e-6)
    one = curves[(curves["metric"] == "flops") & (curves["source"] == "predicted")]
    assert one["num_visual"].min() == 256
    assert one["num_visual"].max() == 131_072
    assert (one["low"] <= one["high"]).all()


def test_a_metric_is_fitted_where_it_was_told(default: pd.DataFrame) -> None:
    fits, _ = fit(default, ["time_s", "mfu"])
    assert len(fits[fits["metric"] == "time_s"]) == len(limits(default)) == 12
    # A predicted cell beyond the card keeps its value; a measured one that ran out has none.
    valued = default[default["time_s"].notna()]
    assert set(valued["status"]) == {"ok", "oom"}
    assert fits.loc[fits["metric"] == "time_s", "num_points"].sum() == len(valued)
    assert fits[fits["metric"] == "mfu"].empty == default["mfu"].isna().all()


def test_limits_are_those_of_the_store(default: pd.DataFrame) -> None:
    table = limits(default).set_index(["pass", "source", "series"])
    eager = table.loc[("forward", "measured", "S-Attn · eager")]
    assert (eager["max_visual"], eager["fails_at"], eager["num_cells"]) == (4096, 8192, 8)
    fused = table.loc[("forward", "measured", "S-Attn · sdpa")]
    assert fused["max_visual"] == 8192
    assert pd.isna(fused["fails_at"])


def test_headline_shows_both_baselines_at_equal_visual(default: pd.DataFrame) -> None:
    table = headline(default).set_index(["pass", "source", "series", "baseline", "metric"])
    row = table.loc[("forward", "predicted", "D-Attn · sdpa", "eager", "flops")]
    assert (row["max_visual"], row["baseline_max_visual"]) == (131_072, 16_384)
    assert row["visual_ratio"] == 8.0
    assert row["num_visual"] == 16_384
    dense, diagonal = (
        golden.flops(make_cell(num_visual=16_384, attention=a)) for a in ("s_attn", "d_attn")
    )
    assert row["ratio"] == pytest.approx(dense / diagonal)
    row = table.loc[("forward", "predicted", "D-Attn · sdpa", "fused", "flops")]
    assert (row["num_visual"], row["visual_ratio"]) == (131_072, 1.0)
    row = table.loc[("forward", "measured", "D-Attn · sdpa", "fused", "time_s")]
    assert (row["num_samples"], row["baseline_num_samples"]) == (3, 3)


def test_headline_gives_the_ratio_of_seconds_its_interval(tmp_path: Path) -> None:
    slow, fast = [2.0 + i / 100 for i in range(12)], [1.0 + i / 100 for i in range(12)]
    frame = frame_of(
        tmp_path,
        timed(2.055, slow, num_visual=64, kernel="eager"),
        timed(1.055, fast, num_visual=64, attention="d_attn"),
    )
    keys = list(zip(frame["run"], frame["key"], frame["source"], frame["device"], strict=True))
    row = headline(frame, ["time_s"], dict(zip(keys, (slow, fast), strict=True))).iloc[0]
    assert row["ratio"] == pytest.approx(2.055 / 1.055)
    assert 1.8 < row["ratio_low"] < row["ratio"] < row["ratio_high"] < 2.1
    assert headline(frame, ["time_s"]).iloc[0][["ratio_low", "ratio_high"]].isna().all()


def test_headline_finds_where_the_curves_cross(tmp_path: Path) -> None:
    visual = [64 * 2**k for k in range(7)]
    records = [timed(1e-6 * v**2 + 1e-3 * v, num_visual=v) for v in visual]
    records += [timed(0.5 + 1e-3 * v, num_visual=v, attention="d_attn") for v in visual]
    records += [timed(1e-6 * v**2 + 1e-3 * v, num_visual=v, kernel="eager") for v in visual]
    table = headline(frame_of(tmp_path, *records), ["time_s"]).set_index(["series", "baseline"])
    assert table.loc[("D-Attn · sdpa", "fused"), "crosses_at"] == pytest.approx(0.5**0.5 * 1e3)
    # Two equal curves do not cross, however rounding parts them.
    assert pd.isna(table.loc[("S-Attn · eager", "fused"), "crosses_at"])


def test_himix_on_one_layer_is_held_against_the_baselines(tmp_path: Path) -> None:
    # Its logits are those of text alone, which means nothing where there are no logits.
    records = [timed(1.0, num_visual=64), timed(0.5, num_visual=64, attention="himix")]
    assert list(headline(frame_of(tmp_path, *records), ["time_s"])["ratio"]) == [2.0]


@pytest.mark.parametrize("kind", golden.CONTENTS)
def test_every_store_can_be_analysed(tmp_path: Path, kind: str) -> None:
    with Store.open(golden.build(tmp_path / "s.db", kind)) as store:
        frame = store.frame()
    fits, curves = fit(frame, ["time_s", "flops"])
    assert set(curves["series"]) <= set(fits["series"]) <= set(series_label(frame))
    assert len(limits(frame)) >= len(frame.groupby(["source", "device"]))
    assert set(headline(frame)["baseline"]) <= {"eager", "fused"}


def test_every_field_of_a_cell_belongs_to_the_subject_the_system_or_the_conditions() -> None:
    assert sorted((*SUBJECT, *SYSTEM, *CONDITIONS, "num_visual")) == sorted(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_cells_that_differ_in_one_field_are_told_apart(name: str, tmp_path: Path) -> None:
    cells = golden.another(name)
    frame = frame_of(tmp_path, *(golden.record(**cell.document()) for cell in cells))
    # Along a line |V| alone differs.
    assert len(kinds(with_series(frame), LINE).distinct) == (1 if name == "num_visual" else 2)


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_caption_names_every_condition_that_is_not_the_default(
    name: str, tmp_path: Path
) -> None:
    frame = frame_of(tmp_path, *(golden.record(**c.document()) for c in golden.another(name)))
    captions = {setting(frame.iloc[[row]]) for row in (0, 1)}
    assert len(captions) == 2
