"""The trace of one iteration: files that its viewers open, and our summary held to the counts."""

import json

import pytest

from tests.small import small_model
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

ONCE = Protocol(min_samples=1, precision=None)
SYSTEMS = {
    "s_attn": ({}, {"attention"}),
    "d_attn": ({"checkpoint": True}, {"V2V", "T2V", "T2T", "merge"}),
    "d_attn_full": ({"kernel": "eager"}, {"V2V", "T2V", "T2T", "merge"}),
    "d_attn_cascade": ({}, {"V2V", "T2V", "T2T"}),
    "d_attn_tanh": ({"layout": "T,V,T"}, {"V2V", "T2V", "T2T", "merge"}),
    "himix": ({"chunk": 16}, {"T2V", "T2T", "merge"}),
}
EVERYWHERE = {"MLP", "norms", "projections", "LM head", "embedding", "loss", "optimizer", "other"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_model("mistral", tmp_path_factory.mktemp("models"))


def traced(cell, folder):
    record = measure(cell, "cpu", ONCE, folder)
    assert record.status == Status.OK
    return record.details["trace"]


@pytest.mark.parametrize("attention", SYSTEMS)
def test_parts_add_up_to_what_is_counted(small, tmp_path, attention):
    options, parts = SYSTEMS[attention]
    cell = make_cell(
        model=small,
        attention=attention,
        num_visual=40,
        scope="decoder",
        dtype="float32",
        **{"pass": "train"},
        **options,
    )
    found = traced(cell, tmp_path)
    assert {row["part"] for row in found["parts"]} == EVERYWHERE | parts
    counted = trace(cell)
    for kind in ("parts", "operators"):
        rows = found[kind]
        assert sum(row["flops"] or 0 for row in rows) == counted.flops
        assert 0 < sum(row["time_s"] for row in rows) <= found["wall_s"]
        times = [row["time_s"] for row in rows if row.get("operator") != "other"]
        assert times == sorted(times, reverse=True)
    assert sum(row["bytes"] or 0 for row in found["parts"]) == counted.bytes_moved
    assert sum(row["calls"] for row in found["parts"]) == sum(
        row["calls"] for row in found["operators"]
    )


def test_a_part_s_flops_are_its_closed_form(small, tmp_path):
    """D-Attn's V2V is W_o over the visual tokens, forward and twice backward; the MLP is three."""
    fields = {"num_visual": 40, "num_text": 24, "attention": "d_attn", "pass": "train"}
    found = traced(make_cell(model=small, dtype="float32", **fields), tmp_path)
    flops = {row["part"]: row["flops"] for row in found["parts"]}
    assert flops["V2V"] == 3 * 2 * 40 * 32 * 32
    assert flops["MLP"] == 3 * 3 * 2 * (40 + 24) * 32 * 48


def test_a_slow_part_takes_the_time(small, tmp_path):
    """Eager attention over 1,500 tokens is most of a layer this narrow, and so of its summary."""
    cell = make_cell(model=small, num_visual=1500, kernel="eager", dtype="float32", num_text=8)
    found = traced(cell, tmp_path)
    assert found["parts"][0]["part"] == "attention"
    assert found["parts"][0]["time_s"] > sum(row["time_s"] for row in found["parts"]) / 2


def test_viewers_open_the_file(small, tmp_path):
    """Chrome's and Perfetto's format, read by TensorBoard's own loader of traces."""
    from torch_tb_profiler import consts
    from torch_tb_profiler.profiler.data import RunProfileData
    from torch_tb_profiler.profiler.run_generator import RunGenerator

    cell = make_cell(model=small, num_visual=8, attention="d_attn")
    name = traced(cell, tmp_path)["file"]
    document = json.loads((tmp_path / name).read_text())
    names = {event.get("name") for event in document["traceEvents"]}
    assert {"aten::mm", "part: V2V", "part: MLP"} <= names
    worker, span = consts.WORKER_PATTERN.match(name).groups()[:2]
    assert worker == cell.key
    data = RunProfileData.parse(worker, span, str(tmp_path / name), str(tmp_path))
    views = RunGenerator(worker, span, data).generate_run_profile()
    rows = views.operation_table_by_name["data"]
    assert "aten::mm" in {row["name"] for row in rows}
