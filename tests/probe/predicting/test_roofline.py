"""Seconds operator by operator, and their tables: everything adds up to the cell's metrics."""

import json

import pytest
import torch

from workbench.cli import main
from workbench.probe.counting.trace import trace
from workbench.probe.counting.traffic import bytes_of
from workbench.probe.predicting.predict import predict
from workbench.probe.predicting.roofline import Rates, predict_times, stand_ins, works
from workbench.vocabulary.calibration import NONE
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.devices import device

aten = torch.ops.aten


@pytest.mark.parametrize("kernel", ["eager", "flash"])
@pytest.mark.parametrize("attention", ["s_attn", "d_attn", "himix"])
def test_tables_add_up_to_the_metrics(attention, kernel):
    cell = make_cell(
        model="qwen2-0.5b",
        scope="decoder",
        attention=attention,
        kernel=kernel,
        num_visual=3000,
        **{"pass": "train"},
    )
    found = predict(cell, "h100-80gb", NONE)
    terms = found.details["time"]
    for name in ("operators", "modules"):
        rows = found.details[name]
        assert sum(row["flops"] for row in rows) == found.metrics["flops"]
        assert sum(row["bytes"] for row in rows) == found.metrics["bytes_moved"]
        assert sum(row["time_s"] for row in rows) == pytest.approx(terms["device_s"])
        assert {row["bound"] for row in rows} <= {"compute", "memory"}
    assert found.metrics["time_s"] == pytest.approx(terms["device_s"] + terms["optimizer_s"])
    named = {row["module"] for row in found.details["modules"]}
    assert {"MLP", "norms", "projections", "LM head"} <= named


def test_attention_by_rows_and_columns():
    """One layer by hand: 7 matmuls, and two over the query-key pairs."""
    cell = make_cell(model="mistral-7b-v0.3", num_visual=960, kernel="flash")
    rows = {row["operator"]: row for row in predict(cell, "h100-80gb").details["operators"]}
    tokens, wide, narrow, middle = 1024, 4096, 1024, 14336
    assert rows["mm"]["calls"] == 7
    assert rows["mm"]["flops"] == 2 * tokens * wide * (2 * wide + 2 * narrow + 3 * middle)
    (attention,) = [row for name, row in rows.items() if "flash" in name]
    assert attention["flops"] == 4 * tokens * tokens * wide
    assert rows["mm"]["bound"] == "compute"
    assert rows["add"]["bound"] == "memory"


def test_each_term_counts():
    cell = make_cell(model="qwen2-0.5b", num_visual=512, kernel="flash")
    work = works(cell, trace(cell))
    names = {one.rate: 1e12 for one in work if one.rate}
    plain = predict_times(work, Rates(names, 1e11, 1e11), None)
    calls = sum(one.calls for one in work)
    late = predict_times(work, Rates(names, 1e11, 1e11, overhead_s=1.0), None)
    assert late.total == pytest.approx(plain.total + calls)
    assert {timed.bound for timed in late.operators} == {"overhead"}
    hosted = predict_times(work, Rates(names, 1e11, 1e11, launch_s=1.0), None)
    assert hosted.total == pytest.approx(calls)
    taken_in_turns = predict_times(work, Rates(names, 1e11, 1e11, exposed=1.0), None)
    moved = sum(one.calls * one.operator.bytes for one in work) / 1e11
    computed = sum(one.calls * one.flops for one in work) / 1e12
    assert taken_in_turns.total == pytest.approx(moved + computed)


def test_fused_kernels_skip_hidden_pairs():
    cell = make_cell(num_visual=8192, num_text=0, kernel="flash")
    peak = device("h100-80gb").peak("bfloat16")
    fused, eager = (
        sum(one.flops * one.calls for one in works(c, trace(c)) if one.operator.attention)
        for c in (cell, cell.replace(kernel="eager"))
    )
    assert peak
    assert fused / eager == pytest.approx((8192 + 1) / (2 * 8192))


def test_bytes_of_what_touches_none_and_of_gathers():
    table, rows = torch.empty(1000, 8), torch.empty(4, 8)
    index = torch.zeros(4, dtype=torch.int64)
    assert bytes_of(aten.embedding, [table, index], [rows]) == 2 * 4 * 8 * 4 + 4 * 8
    assert bytes_of(aten._unsafe_view, [table], [table.view(-1)]) == 0
    assert bytes_of(aten.empty, [], [table]) == 0
    assert bytes_of(aten.add, [rows, rows], [rows]) == 3 * 4 * 8 * 4
    assert bytes_of(aten.add, [rows, rows[:1].expand(4, 8)], [rows]) == (2 * 4 + 1) * 8 * 4


def test_the_command_prints_both_tables(capsys):
    asked = ["predict", "--model", "qwen2-0.5b", "--visual", "64", "--operators"]
    main(asked)
    shown = capsys.readouterr().out
    assert "operator" in shown
    assert "bound by" in shown
    assert "MLP" in shown
    main([*asked, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert {"operators", "modules"} <= set(document["details"])


def test_a_window_that_hides_nothing_is_said():
    cell = make_cell(model="gemma-2-9b", kernel="eager", scope="decoder", num_visual=1000)
    said = [flag for flag in predict(cell, "h100-80gb").flags if flag.startswith("window:")]
    assert said == [
        "window: its 4,096 positions are no fewer than the sequence has, it hides nothing"
    ]
    longer = predict(cell.replace(num_visual=5000), "h100-80gb").flags
    assert not any(flag.startswith("window:") for flag in longer)


def test_counts_beyond_63_bits_are_exact():
    cell = make_cell(
        num_visual=10_000_000, num_text=400, scope="decoder", checkpoint=True, **{"pass": "train"}
    )
    found = predict(cell, "h100-80gb")
    rows = found.details["operators"]
    flops = found.metrics["flops"]
    assert isinstance(flops, int)
    assert flops > 2**63
    assert sum(row["flops"] for row in rows) == flops
    assert flops % 2**12 == 0


def test_what_stands_in_for_a_rate_that_nobody_measured():
    assert stand_ins("matmul bfloat16") == []
    assert stand_ins("attention sdpa bfloat16 backward") == [
        "attention sdpa bfloat16",
        "attention flash bfloat16 backward",
        "attention flash bfloat16",
        "matmul bfloat16",
    ]
    assert stand_ins("attention math float32") == ["attention eager float32", "matmul float32"]
    assert stand_ins("attention eager float32") == ["matmul float32"]
    default, flash = (
        predict(make_cell(num_visual=16_384, kernel=kernel), "h100-80gb")
        for kernel in ("sdpa", "flash")
    )
    assert default.metrics["time_s"] == pytest.approx(flash.metrics["time_s"])
    assert any("attention flash bfloat16 stands in" in flag for flag in default.flags)
