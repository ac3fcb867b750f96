"""Gemma 4's E2B and E4B: embeddings for every layer and shared keys, as transformers has them."""

import json
from pathlib import Path

import pytest
import torch

from tests.lvlm.generation import GREEDY, extend, step_after, write_weights
from tests.lvlm.test_gemma4 import EXPERTS, cell_of, padded
from tests.lvlm.test_oracles import relative
from tests.small import EMBEDDED, small_lvlm, small_model
from workbench.lvlm.attention.per_layer import GIVES, TAKES
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.places import kinds_of, places_of
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.allocator import CARD
from workbench.probe.counting.operators import KNOWN
from workbench.probe.counting.stretches import plan_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

UNIT = ["sliding_attention", "full_attention"] + ["sliding_attention"] * 4
LAYERS = {
    **EMBEDDED,
    "num_hidden_layers": 14,
    "num_kv_shared_layers": 6,
    "layer_types": [*UNIT, "sliding_attention", "full_attention"]
    + ["sliding_attention"] * 5
    + ["full_attention"],
}
"""Where layers repeat: those with keys of their own, and those that take others'."""
FEW = {
    **EMBEDDED,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
"""One layer of each kind."""


def small_text(folder, **fields):
    return small_model("gemma4", folder, **{**EMBEDDED, **fields})


def small_whole(folder, **fields):
    """The same behind a tower whose linear layers clip, with an audio tower beside it."""
    name = small_lvlm("gemma4", folder, **{**EMBEDDED, **fields})
    file = Path(name) / "config.json"
    whole = json.loads(file.read_text())
    whole["vision_config"] |= {"use_clipped_linears": True, "standardize": False}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole["audio_config"] = {"model_type": "gemma4_audio", "output_proj_dims": 16, **sizes}
    file.write_text(json.dumps(whole))
    return name


def decoder_cell(name, **fields):
    return cell_of(name, **{"scope": "decoder", "num_text": 6, "num_visual": 30, **fields})


def test_greedy_generation_is_transformers_own(tmp_path):
    """From pixels, past the window, with bounds that clip and visual rows of the padding's id."""
    name = small_whole(tmp_path, pad_token_id=7)
    model = write_weights(name, buffers=("layer_scalar",), seed=4)
    for key, buffer in model.named_buffers():
        if key.endswith(("_min", "_max")):
            buffer.fill_(-0.5 if key.endswith("_min") else 0.7)
    model.save_pretrained(name)
    workload = build(cell_of(name, num_text=3, weights=name))
    pixels, ids = workload.inputs[0], torch.tensor([[1, 5, 9]])
    given = padded(pixels, tower_of(resolve(name)).grids(64))
    with torch.no_grad():
        asked = {"input_ids": torch.cat([torch.full((1, 64), 96), ids], 1), **given}
        assert relative(workload.module(pixels, ids), model(**asked).logits) <= 1e-5
        wanted = model.generate(**asked, max_new_tokens=3, **GREEDY)
    ids = extend(ids, 3, lambda num: build(cell_of(name, num_text=num, weights=name)), pixels)
    assert torch.equal(ids[0], wanted[0, 64:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


def test_a_decode_step_is_the_last_row_of_a_prefill(tmp_path):
    """Over the caches that a prefill keeps; layers that take keys and values have none."""
    name = small_whole(tmp_path)
    write_weights(name, buffers=("layer_scalar",))
    cell = decoder_cell(name, weights=name, num_visual=0, num_text=19)
    ids = torch.randint(97, (1, 19))
    whole = build(cell).module(None, ids)
    logits, prefill, step = step_after(cell, ids)
    assert relative(logits, whole[:, -1:]) <= 1e-6
    groups = resolve(name).config.num_key_value_heads
    local, wide = 2 * groups * 8, 2 * groups * 16
    assert step.kv_cache_bytes == 8 * (4 * local * 15 + wide * 18)
    assert prefill.kv_cache_bytes == step.kv_cache_bytes


def test_logits_of_text_are_those_rows_of_all(tmp_path):
    """Without layers that share keys and values too."""
    name = small_text(tmp_path, num_kv_shared_layers=0, use_double_wide_mlp=False)
    cell = decoder_cell(name, layout="T,V,T")
    assert not any(place.role for place in places_of(cell))
    every, text = (build(cell.replace(logits=rows)) for rows in ("all", "text"))
    text.module.load_state_dict(every.module.state_dict())
    with torch.no_grad():
        rows = every.module(*every.inputs)[:, every.context.layout.rows(visual=False)]
        assert relative(text.module(*every.inputs), rows) <= 1e-9


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
@pytest.mark.parametrize("kind", [{}, EXPERTS], ids=["dense", "experts"])
def test_closed_form_is_the_count_and_layers_repeat(kind, pass_, tmp_path):
    name = small_model("gemma4", tmp_path, **LAYERS, **kind)
    cell = decoder_cell(name, dtype="float32", **{"pass": pass_})
    composed, whole = trace(cell), trace(cell, compose=False)
    assert [(s.unit, s.count) for s in plan_of(cell)] == [(1, 4), (1, 5)]
    assert composed.flops == whole.flops == whole.model_flops
    assert composed.flops_causal == whole.flops_causal == whole.model_flops_causal
    assert composed.params == whole.params
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]


@pytest.mark.parametrize("fields", [{"checkpoint": True, "offload": True}, {"lora": "r=2"}])
def test_what_training_adds_is_composed_as_it_is(fields, tmp_path):
    name = small_model("gemma4", tmp_path, **LAYERS)
    cell = decoder_cell(name, dtype="float32", **{"pass": "train", **fields})
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.flops == whole.flops
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert composed.offload_bytes == whole.offload_bytes


def test_layers_that_differ_in_what_they_compute_are_told_apart(tmp_path):
    """By what they do with keys, not by modules alone."""
    cell = decoder_cell(small_text(tmp_path))
    roles = [place.role for place in places_of(cell)]
    assert roles == ["", "", GIVES, "", GIVES, TAKES, TAKES, TAKES]
    local = [kinds_of(cell)[i] for i in (0, 1, 3, 4, 6)]
    assert local[0] == local[1] == local[2]
    assert len(set(local)) == 3


@pytest.mark.parametrize("pass_", ["train", "decode"])
def test_its_operators_were_gone_through(pass_, tmp_path):
    cell = cell_of(small_whole(tmp_path, **FEW), **{"pass": pass_})
    traced = trace(cell, CARD, compose=False)
    assert {op.name for op in traced.operators} <= KNOWN
    assert traced.flops == traced.model_flops


@pytest.mark.parametrize("layer", [0, 2, 4, 7])
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_a_layer_alone_is_given_what_it_takes(layer, pass_, tmp_path):
    name = small_text(tmp_path)
    cell = decoder_cell(name, scope="layer", layer=layer, **{"pass": pass_})
    workload, counted = build(cell), trace(cell)
    workload.step()
    assert counted.flops == counted.model_flops
    role = places_of(cell)[layer].role
    assert len(workload.inputs) == (4 if role == TAKES else 2)
    assert bool(workload.kv_cache_bytes) == (role != TAKES)
    if pass_ == "train":
        assert all(x.grad is not None for x in workload.inputs)


@pytest.mark.parametrize(
    "fields",
    [
        {"scope": "decoder", "cache": True, "kernel": "sdpa", "batch": 2},
        {"scope": "decoder", "pass": "decode"},
        {"scope": "decoder", "pass": "train", "checkpoint": True},
        {"pass": "train"},
        {"kernel": "sdpa"},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    cell = cell_of(small_whole(tmp_path, **FEW), **{"dtype": "float32", **fields})
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    predicted = predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    for metric in ("flops", "flops_causal", "params", "kv_cache_bytes"):
        assert measured.metrics.get(metric) == predicted.metrics.get(metric)
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.002)


def test_a_cache_holds_no_more_than_what_is_not_shared():
    """Of 35 layers the first 15: a local one holds its window, a global one all tokens."""
    cell = make_cell(model="gemma-4-e2b", scope="decoder", num_visual=8192, num_text=6)
    record = predict(cell.replace(pass_="decode"), "h100-80gb")
    local, wide = 2 * 256 * 511, 2 * 512 * (8192 + 6)
    assert record.metrics["kv_cache_bytes"] == 2 * (12 * local + 3 * wide)


@pytest.mark.parametrize("field", ["ulysses", "ring"])
def test_ranks_do_not_share_its_sequence(field):
    own = {"kernel": "flash"} if field == "ring" else {}
    cell = make_cell(
        model="gemma-4-e4b", scope="decoder", num_visual=64, world_size=2, **{field: 2}, **own
    )
    with pytest.raises(
        RequestError, match=f"^{field} 2: layers of gemma-4-e4b hand on"
    ) as refusal:
        build(cell, "meta")
    assert "\n" not in str(refusal.value)


def test_an_audio_tower_that_cannot_be_is_one_line(tmp_path):
    name = small_whole(tmp_path)
    file = Path(name) / "config.json"
    whole = json.loads(file.read_text())
    whole["audio_config"]["subsampling_conv_channels"] = [-4, 2]
    file.write_text(json.dumps(whole))
    with pytest.raises(RequestError, match="audio_config: transformers cannot build") as refusal:
        predict(cell_of(name, scope="lvlm", num_visual=64), "cpu")
    assert "\n" not in str(refusal.value)
