"""A sequence that ranks share by rows: real gloo processes against one, float64; what it costs.

Two launches serve all of it: each rank imports torch anew, and that takes seconds.
"""

import json

import pytest

from tests.probe.ranks.test_ranks import torchrun
from tests.small import small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.sharing import predicted_rank
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell

STEP = {"scope": "decoder", "pass": "train", "dtype": "float64"}
TWO = {"ring": 2, "world_size": 2, "num_visual": 33, "num_text": 15}
FOUR = {"ulysses": 2, "ring": 2, "world_size": 4, "num_visual": 25, "num_text": 15}
TEXT = sorted(name for name in SYSTEMS if SYSTEMS[name].ring == "text")
CASES = {
    "zigzag": {},
    "contiguous": {"ring_order": "contiguous"},
    "between": {"layout": "V,T,V,T", "logits": "text", "batch": 2},
    "checkpoint": {"checkpoint": True, "layout": "T,V,T"},
    "labels": {"loss_rows": "all", "tiled": True},
    "text alone": {"num_visual": 0, "num_text": 16},
    **{name: {"attention": name, "layout": "V,T,V,T", "batch": 2} for name in TEXT},
    "remainders": {"attention": "d_attn", "layout": "T,V,T", "checkpoint": True, "num_visual": 7},
    "chunks": {"attention": "d_attn", "chunk": 4, "fold": True, "logits": "text"},
}
SQUARE = {
    "zigzag": {},
    "contiguous": {"ring_order": "contiguous", "checkpoint": True},
    "of four": {"ulysses": 1, "ring": 4},
    "d_attn of four": {"ulysses": 1, "ring": 4, "attention": "d_attn"},
}


def launch(folder, cases, common, ranks):
    model = small_model("mistral", folder)
    cells = {name: {"model": model, **STEP, **common, **more} for name, more in cases.items()}
    asked, out = folder / "cells.json", folder / "out.json"
    asked.write_text(json.dumps(cells))
    ran = torchrun("tests.lvlm.shared_sequence", asked, out, ranks=ranks)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return {name: (cells[name], found) for name, found in json.loads(out.read_text()).items()}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("two"), CASES, TWO, 2)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("four"), SQUARE, FOUR, 4)


def holds(fields, ranks):
    """Ranks against one process, and the prediction against the rank that it is of."""
    assert max(rank["worst"] for rank in ranks) < 1e-9
    assert max(rank["loss"] for rank in ranks) < 1e-6  # It is float32.
    cell = make_cell(**fields)
    own, traced = ranks[predicted_rank(cell)], trace(cell)
    assert own["flops"] == traced.flops == max(rank["flops"] for rank in ranks)
    assert {rank["sent"] for rank in ranks} == {traced.ring_bytes}
    assert own["peak"] == pytest.approx(traced.timeline.peak()[0], rel=0.04)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_are_one_process(two, name):
    holds(*two[name])


@pytest.mark.parametrize("name", SQUARE)
def test_four_ranks_are_one_process(four, name):
    holds(*four[name])
