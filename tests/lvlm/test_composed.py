"""Systems whose layers differ: a decoder composed from units is the one traced whole, and runs."""

import pytest

from tests.lvlm.definitions import settings_of
from tests.lvlm.test_kinds import assert_composed
from tests.small import small_model
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.protocol import Protocol

SYSTEMS = (
    "cmai",
    "cross_lmm",
    "d_attn_biased",
    "d_attn_full",
    "d_attn_sigmoid",
    "d_attn_sum",
    "d_attn_tanh",
    "gated_xattn",
    "hyper_attn",
    "moh",
    "saisa",
    "streaming",
)
TRAIN, EVERY = {"pass": "train"}, {"pass": "train", "checkpoint": True, "checkpoint_every": 2}
PASSES = {
    "forward": {},
    "train": TRAIN,
    "checkpoint": {**TRAIN, "checkpoint": True},
    "checkpoint_every": EVERY,
    "decode": {"pass": "decode"},
}


def cell_of(system, folder, family="mistral", layers=2, **fields):
    return make_cell(
        model=small_model(family, folder, num_hidden_layers=layers),
        attention=system,
        settings=settings_of(system),
        scope="decoder",
        kernel="eager",
        dtype="float32",
        num_visual=37,
        num_text=7,
        **fields,
    )


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("pass_", PASSES)
def test_composed_is_traced_whole(system, pass_, tmp_path):
    layers = 18 if pass_ == "checkpoint_every" else 10
    cell = cell_of(system, tmp_path, layers=layers, layout="T,V,T", **PASSES[pass_])
    assert_composed(cell)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("pass_", PASSES)
def test_measured(system, pass_, tmp_path):
    cell = cell_of(system, tmp_path, family="qwen2", **PASSES[pass_])
    record = measure(cell, "cpu", Protocol(iterations=1))
    assert record.status == "ok", record.error
    traced = trace(cell, compose=False)
    assert record.metrics["flops"] == traced.flops
    assert record.metrics["params"] == traced.params
