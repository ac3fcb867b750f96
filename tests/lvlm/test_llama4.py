"""Llama 4: transformers' own results, chunks, experts, and what it has no place for."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.test_oracles import relative
from tests.small import small_lvlm, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

SCOUT = "llama-4-scout-17b-16e"


def checkpoint(folder):
    name = small_lvlm("llama4", folder)
    return name, write_weights(name, dtype=torch.float32, std=0.2)


def cell_of(name, **fields):
    given = {"scope": "lvlm", "kernel": "eager", "dtype": "float32", "num_visual": 12}
    return make_cell(model=name, **{**given, **fields})


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_greedy_generation_is_transformers_own(kernel, tmp_path):
    """From pixels; the sequence is longer than a chunk, and queries are scaled by position."""
    name, model = checkpoint(tmp_path)
    ids = torch.tensor([[1, 5, 9, 3, 7, 2]])
    workload = build(cell_of(name, weights=name, num_text=6, kernel=kernel))
    pixels = workload.inputs[0]
    asked = torch.cat([torch.full((1, 12), 96), ids], 1)
    with torch.no_grad():
        expected = model(input_ids=asked, pixel_values=pixels).logits
        assert relative(workload.module(pixels, ids), expected) <= 1e-4
        wanted = model.generate(input_ids=asked, pixel_values=pixels, max_new_tokens=4, **GREEDY)
    ids = extend(ids, 4, lambda num: build(cell_of(name, weights=name, num_text=num)), pixels)
    assert torch.equal(ids[0], wanted[0, 12:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


def test_parameters_of_the_catalogue_are_transformers_own():
    model = resolve(SCOUT)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    found = trace(cell_of(SCOUT, dtype="bfloat16", num_visual=1440))
    assert found.params == sum(p.numel() for p in whole.parameters()) == 108_641_793_536
    text = sum(p.numel() for p in whole.language_model.parameters())
    assert found.params_by_component["decoder"] == text
    assert found.flops == found.model_flops
    active = text - (found.params - found.active_params)
    assert active == pytest.approx(17e9, rel=0.02)  # As published.


def test_chunks_hide_what_stands_before_them(tmp_path):
    """Three layers of four in chunks of 16: pairs that the mask allows, and the cache."""
    name = small_model("llama4", tmp_path)
    cell = cell_of(name, scope="decoder", num_visual=32, num_text=8)
    found = trace(cell)
    whole, chunked = 40 * 41 // 2, 2 * (16 * 17 // 2) + 8 * 9 // 2
    hidden = 4 * 40**2 - 3 * chunked - whole
    assert found.flops - found.flops_causal == 4 * 4 * 8 * hidden
    step = predict(cell.replace(pass_="decode"), "cpu")
    assert step.metrics["kv_cache_bytes"] == 4 * 2 * 2 * 8 * (3 * 15 + 40)


@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "train"},
        {"pass": "train", "checkpoint": True},
        {"cache": True},
        {"pass": "decode"},
        {"pass": "train", "lora": "r=2"},
        {"pass": "train", "lora": "r=2", "weights_dtype": "int8"},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    name = small_lvlm("llama4", tmp_path, num_hidden_layers=8)
    cell = cell_of(name, num_visual=24, num_text=5, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert whole.flops == whole.model_flops or cell.checkpoint
    measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    predicted = predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    assert measured.metrics["flops"] == predicted.metrics["flops"]
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.02)
    said = [flag for flag in predicted.flags if flag.startswith("experts: every token")]
    assert said == [flag for flag in measured.flags if flag.startswith("experts: every token")]
    assert "all 4, as transformers has it, of which the router chooses 1" in said[0]
    for name in ("lora", "weights_dtype"):
        wanted = f"{name}: experts and their router, which gives scores of them all, are no linear"
        assert any(f.startswith(wanted) for f in predicted.flags) == (name in fields)


@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - {"s_attn"}))
def test_other_systems_are_refused_by_name(system):
    cell = make_cell(model=SCOUT, attention=system, scope="decoder", num_visual=64)
    with pytest.raises(Unsupported, match=f"^{system}: llama4_text norms queries and keys after"):
        build(cell, "meta")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tiled": True}, "tiled: the experts of llama4_text are one call"),
        ({"kernel": "flex", "num_visual": 9216}, "'flex' has no mask of chunks, which llama4"),
    ],
)
def test_what_has_no_place_is_one_line(fields, message):
    cell = make_cell(model=SCOUT, scope="layer", layer=0, **{"num_visual": 64, **fields})
    with pytest.raises(Unsupported, match=message):
        build(cell, "meta")
