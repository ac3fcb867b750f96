"""The sentences on top of each page, over what an H100 measured."""

from functools import cache

import pandas as pd
import pytest

from tests.reference import STORE
from workbench.analysis import fit
from workbench.store import Store
from workbench.telling.fits import fit_rows
from workbench.telling.sentences import (
    AGAINST,
    against_rows,
    pairs,
    pairs_at,
    place,
    places,
    reach_rows,
    shared_options,
)
from workbench.telling.verdict import Verdict
from workbench.telling.view import CAPACITIES, Details, prepared, where


@cache
def rows_of(scope: str, pass_: str) -> pd.DataFrame:
    with Store.open(STORE) as store:
        frame = prepared(store.frame(details=CAPACITIES))
    return where(frame, {"scope": scope, "pass": pass_})


@cache
def verdict(scope: str, pass_: str) -> Verdict:
    rows = rows_of(scope, pass_)
    at = places(rows)[0]
    return Verdict(rows, pairs_at(pairs(rows, Details(STORE)), *at), place(*at))


def test_utilization_says_that_the_step_was_emulated() -> None:
    told = verdict("decoder", "train").utilization()
    assert told is not None
    assert "cold, 2 samples, emulated: 1 of 32 ranks, all layers" in told


def test_growth_says_of_which_system_a_size_was_left_out() -> None:
    told = verdict("layer", "train").growth()
    # Eager's own growth is from 1,024 on, which tells of it and not of D-Attn.
    assert "S-Attn · eager (1,024 to 4,096)" in told
    assert (
        "left out as host-bound: 256 of S-Attn · cudnn and S-Attn · eager;"
        " 256 and 1,024 of D-Attn · flash"
    ) in told


def test_growth_has_the_marks_of_its_two_points() -> None:
    rows, told = rows_of("decoder", "train"), verdict("decoder", "train")
    fits, _ = fit(rows, ["time_s"])
    (line,) = (row for row in fits.to_dict("records") if row["series"] == told.system)
    marks = told.growth_marks(str(told.system), line)
    assert marks == "emulated, cold, power-capped, 2 to 3 samples"


def test_nobody_is_faster_where_the_host_set_every_pace() -> None:
    (turn,) = verdict("decoder", "decode").turns()
    assert turn.startswith("D-Attn · flash and the fastest fused S-Attn were both timed at")
    assert "where the host set the pace, so no ratio is formed" in turn
    assert "faster" not in turn


@pytest.mark.parametrize(("scope", "pass_"), [("layer", "train"), ("layer", "forward")])
def test_a_crossing_is_said_of_each_baseline(scope: str, pass_: str) -> None:
    fused = verdict(scope, pass_).turns()[-1]
    assert fused.startswith("The fastest fused S-Attn is faster up to |V| = 1,024, D-Attn")
    assert "from 4,096 on; at 256 and 1,024 the host set the pace of one or both" in fused


def test_the_quadratic_term_is_the_first_of_the_fitted_terms() -> None:
    cells = rows_of("layer", "train")
    fits, _ = fit(cells, ["flops"])
    columns, rows = fit_rows(fits, cells)
    assert columns[:4] == ("metric", "system", "c, per token²", "for 4× the tokens")
    terms = {row[1]: row[columns.index("c, per token²")] for row in rows}
    assert terms["S-Attn · cudnn"].startswith("57.344 kFLOP")
    assert terms["D-Attn · flash"].startswith("none found")
    points = {row[1]: row[columns.index("points")] for row in rows}
    assert points["S-Attn · cudnn"] == "5"


def test_a_baseline_that_never_ran_is_not_missing() -> None:
    rows = rows_of("decoder", "train")
    ended = rows.assign(status=rows["status"].where(rows["attention"] != "s_attn", "oom"))
    told = Verdict(ended, [], "here")
    words = ["no cell of S-Attn with the eager kernel ran", "no cell of S-Attn with a fused"]
    assert told.lacking([])[0] == words[0]
    assert told.lacking([])[1].startswith(words[1])
    assert words[0] in told.speed()
    rest = Verdict(rows[rows["attention"] != "s_attn"], [], "here")
    assert rest.lacking([])[0] == "S-Attn with the eager kernel is missing"


def test_a_fitted_term_carries_the_marks_of_its_records() -> None:
    cells = rows_of("decoder", "train")
    fits, _ = fit(cells, ["peak_bytes", "time_s"])
    columns, rows = fit_rows(fits, cells)
    place = columns.index("source, device")
    told = {(row[0], row[1]): row[place] for row in rows}
    on = "measured, NVIDIA H100 80GB HBM3"
    assert told["Peak memory", "D-Attn · flash"] == f"{on} (emulated)"
    seconds = told["Seconds per iteration", "D-Attn · flash"]
    assert seconds == f"{on} (emulated, cold, power-capped, 2 to 3 samples)"


def test_tables_use_short_names_and_say_what_these_leave_out() -> None:
    rows = rows_of("decoder", "train")
    names = [row[0] for row in reach_rows(rows)]
    assert {"S-Attn · eager", "D-Attn · flash"} <= set(names)
    assert shared_options(list(rows["series"].unique())) == ", all with checkpoint"
    found = pairs_at(pairs(rows, Details(STORE)), *places(rows)[0])
    short = {"D-Attn · flash · checkpoint": "ours"}
    ours = [row for row in against_rows(found, short) if row[0] == "ours"]
    faster = AGAINST.index("times as fast")
    assert [row[faster] for row in ours] == ["5.23×", "1.21×", "2.60×"]
