"""An emulated ZeRO-3 rank needs what it is predicted to need, and what the rank would."""

import pytest

from tests.small import small_model
from workbench.lvlm.emulate import emulated_rank
from workbench.probe.counting.allocator import CARD, HOST
from workbench.probe.measuring.measure import measure
from workbench.probe.measuring.memory import memory_pass
from workbench.probe.predicting.emulation import emulated_peak, plan_rank, trace_emulation
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol

WIDE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 997,
    "num_hidden_layers": 6,
}


RANK = {
    "scope": "decoder",
    "num_visual": 400,
    "num_text": 20,
    "zero": 3,
    "world_size": 4,
    "logits": "text",
    "checkpoint": True,
    "pass": "train",
}


def cell_of(model, **fields):
    return make_cell(model=model, **{**RANK, **fields})


def measured_peak(cell, plan):
    workload = emulated_rank(cell, plan.emulation, "cpu")
    workload.optimizer = workload.make_optimizer()
    workload.step()
    return memory_pass(workload).peak


@pytest.mark.parametrize("layers", ["all", 2])
@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("mistral", {"kernel": "eager"}),
        ("mistral", {"attention": "d_attn", "dtype": "float32"}),
        ("mistral", {"attention": "d_attn", "chunk": 256, "num_visual": 1500}),
        ("gemma2", {"attention": "himix", "kernel": "eager"}),
        ("llama", {"attention": "d_attn_cascade", "dtype": "float32", "checkpoint_every": 2}),
    ],
)
def test_prediction_measurement_and_the_real_rank_agree(tmp_path, family, fields, layers):
    cell = cell_of(small_model(family, tmp_path, **WIDE), **fields)
    traced = trace_emulation(cell, layers, HOST)
    plan, expected = traced.plan, emulated_peak(cell, traced).total
    assert measured_peak(cell, plan) == pytest.approx(expected, rel=0.02)
    rank = predict(cell, "cpu").metrics["peak_bytes"]
    # A gradient exists beside its bucket while it is added to it, one parameter at a time.
    assert expected == pytest.approx(rank + plan.excess_bytes, rel=0.05)
    assert plan.whole == (layers == "all")


@pytest.mark.parametrize("layers", [2, pytest.param("all", marks=pytest.mark.slow)])
def test_a_rank_of_32_is_emulated_as_predicted(layers):
    for system in ({"kernel": "eager", "num_visual": 13_000}, {"attention": "d_attn"}):
        fields = {"world_size": 32, "num_text": 400, "num_visual": 74_000, **system}
        cell = cell_of("mistral-7b-v0.3", **fields)
        traced = trace_emulation(cell, layers, CARD)
        assert traced.plan.excess_bytes == 0
        rank = predict(cell, "h100-80gb").metrics["peak_bytes"]
        assert emulated_peak(cell, traced).total == pytest.approx(rank, rel=0.01)


@pytest.mark.parametrize(
    ("fields", "layers", "words"),
    [
        ({"zero": 0, "world_size": 1}, "all", "under --zero 3"),
        ({"zero": 2}, 2, "under --zero 3"),
        ({"checkpoint_every": 4}, 2, "alike every 4"),
        ({"accumulate": 2}, 2, "accumulate"),
        ({}, 40, "has 32 layers"),
    ],
)
def test_what_cannot_be_emulated_is_explained(fields, layers, words):
    with pytest.raises(RequestError, match=words):
        plan_rank(cell_of("mistral-7b-v0.3", **fields), layers)


def test_records_of_an_emulation_say_so(tmp_path):
    cell = cell_of(small_model("mistral", tmp_path, **WIDE), dtype="float32")
    part, whole = (
        measure(cell, "cpu", Protocol(min_samples=2, precision=None, emulate=layers))
        for layers in (2, "all")
    )
    flag = "emulated: one ZeRO-3 rank of 4; 2 of 6 layers run, over the weights of 1, beside "
    assert part.flags[0].startswith(flag)
    assert whole.flags[0].startswith("emulated: one ZeRO-3 rank of 4; 6 of 6 layers run")
    assert whole.metrics["time_s"] > 0
    assert (part.metrics["time_s"], part.metrics["mfu"]) == (None, None)
    assert "time_s: 2 of 6 layers ran" in part.flags
    assert set(part.samples) == {f"part_of_{name}" for name in whole.samples}
    assert part.metrics["flops"] == whole.metrics["flops"]
    assert part.metrics["peak_bytes"] == pytest.approx(whole.metrics["peak_bytes"], rel=0.02)
    with pytest.raises(RequestError, match="--emulate all"):
        measure(cell, "cpu", Protocol())
