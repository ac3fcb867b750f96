"""What a report says behind its predictions: assumptions, deepspeed's estimate, the paper."""

from pathlib import Path

import pytest

from tests import golden
from workbench.probe.predicting.predict import predict
from workbench.report.contents import contents
from workbench.store import Store
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.record import Environment

PAPER = {
    "scope": "decoder",
    "pass": "train",
    "num_text": 400,
    "checkpoint": True,
    "zero": 3,
    "world_size": 32,
    "logits": "text",
}


def tables(path: Path):
    blocks = [block for section in contents(path).sections for block in section.blocks]
    return {table.title: table for block in blocks for table in block.tables}


def stored(path: Path, records) -> Path:
    with Store.open(path, "w") as store:
        run = store.begin_run("paper", {}, Environment())
        store.add_many(run, records)
    return path


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    cells = [
        make_cell(**PAPER, attention=attention, kernel=kernel, num_visual=visual)
        for attention, kernel in (("s_attn", "eager"), ("d_attn", "sdpa"))
        for visual in (9_000, 74_000)
    ]
    records = [predict(cell, "h100-80gb") for cell in cells]
    path = stored(tmp_path_factory.mktemp("paper") / "store.db", records)
    return records, tables(path)


def test_the_paper_stands_beside_its_prediction(shown):
    records, found = shown
    rows = found["The predictions at the published sizes"].rows
    assert [row[1:3] for row in rows] == [
        ("9,000", "the largest"),
        ("74,000", "out of memory"),
        ("9,000", "fits"),
        ("74,000", "the largest"),
    ]
    eager = records[0]
    kinds, peak = eager.details["memory_by_kind"], eager.metrics["peak_bytes"]
    growing = ("inputs", "activations", "logits", "temporaries", "working", "rounding")
    grows = peak - sum(kinds[k] for k in kinds if k not in growing)
    room = eager.details["capacity_bytes"] - peak + grows
    assert float(rows[0][5]) == pytest.approx(room / grows, abs=0.006)
    assert rows[0][7] == "11.25"
    assert rows[0][8] == f"{11.25 / eager.metrics['time_s']:.2f}×"
    assert rows[2][7] == "2.24"
    assert "micro-batch" in found["The predictions at the published sizes"].note


def test_states_and_assumptions_are_told_once(shown):
    records, found = shown
    (states,) = found["Model states beside deepspeed's estimate"].rows
    assert states[0].startswith("S-Attn")
    assert "D-Attn" in states[0]
    assert states[5] == records[0].details["states"]["difference"]
    assumed = found["What the predictions assume of the memory"].rows
    assert {row[1] for row in assumed} == {"blocks", "workspace", "context", "temporaries"}
    assert ("eager, sdpa", "workspace") in {row[:2] for row in assumed}


def test_details_of_a_stranger_break_nothing(tmp_path):
    fields = {**PAPER, "attention": "d_attn", "num_visual": 9_000}
    record = golden.record("predicted", "h100-80gb", **fields)
    details = {
        "assumed": ["x"],
        "states": {"held_bytes": "1"},
        "memory_by_kind": 3,
        "capacity_bytes": 10**9,
    }
    path = stored(tmp_path / "store.db", [record.model_copy(update={"details": details})])
    found = tables(path)
    assert "Model states beside deepspeed's estimate" not in found
    assert "What the predictions assume of the memory" not in found
    assert len(found["The predictions at the published sizes"].rows) == 1
