"""What the ranks send each other; tests/probe/ranks holds it against two real ones."""

from pathlib import Path

import pytest

from tests.small import small_model
from workbench.probe.counting.states import Parameter
from workbench.probe.predicting.collectives import sent_bytes
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import Cell, make_cell

STEP = {"scope": "decoder", "pass": "train", "num_visual": 33, "num_text": 15}
CARD = """
peak_flops: {bfloat16: 1.0e+15, float16: 1.0e+15, float32: 1.0e+15, float64: 1.0e+15}
bandwidth_bytes_per_s: 1.0e+15
total_bytes: 80 GiB
context_bytes: 0
link_bandwidth_bytes_per_s: 1000
"""


def cell_of(folder: Path, **fields: object) -> Cell:
    return make_cell(model=small_model("mistral", folder), **{**STEP, "world_size": 4, **fields})


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, {"all_reduce": 2 * 1500}),
        ({"zero": 1}, {"all_reduce": 2 * 1500, "all_gather": 1500}),
        ({"zero": 2}, {"all_reduce": 2 * 2 * 1500, "all_gather": 1500}),
        ({"zero": 3}, {"reduce_scatter": 2 * 1500, "all_gather": 1500}),
    ],
)
def test_a_ring_of_four_sends_three_quarters(fields, sent, tmp_path):
    cell = cell_of(tmp_path, accumulate=2, **fields)
    trained, frozen = Parameter("decoder", 2000), Parameter("tower", 8000, trained=False)
    found = sent_bytes(cell, [trained])
    assert found == {kind: 2 * size for kind, size in sent.items()}
    beside = sent_bytes(cell, [trained, frozen])
    more = 2 * 6000 if cell.zero == 3 else 0
    assert beside["all_gather" if cell.zero else "all_reduce"] == (
        found["all_gather" if cell.zero else "all_reduce"] + more
    )


def test_stage_3_gathers_anew_for_the_backward_what_it_cannot_keep(tmp_path):
    cell = cell_of(tmp_path, zero=3)
    held, large = 10**9, 4 * 10**9
    assert sent_bytes(cell, [Parameter("decoder", held)])["all_gather"] == 2 * held * 3 // 4
    again = 2 * (2 * large - held) * 3 // 4
    assert sent_bytes(cell, [Parameter("decoder", large)])["all_gather"] == again
    frozen = [Parameter("decoder", 10), Parameter("tower", large, trained=False)]
    assert sent_bytes(cell, frozen)["all_gather"] == 2 * (12 + large) * 3 // 4


def test_the_link_bounds_the_time(tmp_path):
    card = tmp_path / "slow.yaml"
    card.write_text(CARD)
    sizes = {"num_text": 15, "dtype": "float32"}
    alone = predict(cell_of(tmp_path, world_size=1, **sizes), str(card))
    assert "communication" not in alone.details
    record = predict(cell_of(tmp_path, zero=2, **sizes), str(card))
    found = record.details["communication"]
    assert record.metrics["time_s"] == found["time_s"] == sum(found["sent_bytes"].values()) / 1000
    shared = predict(cell_of(tmp_path, zero=2, ulysses=2, **sizes), str(card))
    exchanged = shared.metrics["all_to_all_bytes"]
    assert shared.details["communication"]["sent_bytes"]["all_to_all"] == exchanged
    unknown = predict(cell_of(tmp_path, zero=2, **sizes), "l40s-48gb")
    assert unknown.details["communication"]["time_s"] is None
    assert any(flag.startswith("communication: collectives take no") for flag in unknown.flags)
