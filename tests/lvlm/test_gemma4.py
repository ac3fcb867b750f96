"""Gemma 4, with experts and without: transformers' own results, costs, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.lvlm.definitions import settings_of
from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.test_oracles import relative
from tests.small import EMBEDDED, small_lvlm, small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

EXPERTS = {
    "enable_moe_block": True,
    "num_experts": 8,
    "top_k_experts": 2,
    "moe_intermediate_size": 16,
}
KINDS = {"dense": ({}, torch.float64), "experts": (EXPERTS, torch.float32)}
"""Fields of the text model, and the widest type that its layers compute in."""


PUBLISHED = {"gemma-4-31b": (30.7e9, 30.7e9), "gemma-4-26b-a4b": (25.2e9, 3.8e9)}
"""Parameters of the text model, and those that one token meets."""


def checkpoint(kind, folder):
    """A small checkpoint and transformers' own model, every weight and buffer of it random."""
    fields, dtype = KINDS[kind]
    name = small_lvlm("gemma4", folder, **fields)
    buffers = ("layer_scalar", "std_bias", "std_scale")
    return name, write_weights(name, dtype=dtype, buffers=buffers)


def cell_of(name, kind="dense", **fields):
    dtype = str(KINDS[kind][1]).removeprefix("torch.")
    given = {"scope": "lvlm", "kernel": "eager", "dtype": dtype, "num_visual": 64, **fields}
    return make_cell(model=name, **given)


def padded(pixels, grids):
    """transformers' inputs of these images: patches and their places, up to the budget's most."""
    values, places = [], []
    for patches, grid in zip(pixels.split([g.patches for g in grids]), grids, strict=True):
        across, down = torch.arange(grid.columns), torch.arange(grid.rows)
        own = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1).reshape(-1, 2)
        rest = 70 * 9 - grid.patches
        values.append(torch.cat([patches, patches.new_zeros(rest, patches.shape[1])]))
        places.append(torch.cat([own, torch.full((rest, 2), -1)]))
    return {"pixel_values": torch.stack(values), "image_position_ids": torch.stack(places)}


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_generation_is_transformers_own(kind, tmp_path):
    """From pixels, token for token, with the weights and the buffers of the checkpoint."""
    name, model = checkpoint(kind, tmp_path)
    workload = build(cell_of(name, kind, num_text=3, weights=name))
    pixels, ids = workload.inputs[0], torch.tensor([[1, 5, 9]])
    given = padded(pixels, tower_of(resolve(name)).grids(64))
    with torch.no_grad():
        asked = {"input_ids": torch.cat([torch.full((1, 64), 96), ids], 1), **given}
        assert relative(workload.module(pixels, ids), model(**asked).logits) <= 1e-4
        wanted = model.generate(**asked, max_new_tokens=3, **GREEDY)
    ids = extend(
        ids, 3, lambda num: build(cell_of(name, kind, num_text=num, weights=name)), pixels
    )
    assert torch.equal(ids[0], wanted[0, 64:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


def test_images_of_several_sizes_are_those_of_the_padded_batch(tmp_path):
    name, model = checkpoint("dense", tmp_path)
    tower = tower_of(resolve(name))
    sizes = [(300, 110), (110, 700), (110, 700), (9, 1640)]
    grids = tuple(grid for item in tower.of_images(sizes) for grid in item)
    workload = build(cell_of(name, weights=name))
    own, adapter = tower.build(workload.context, grids, True)
    pixels = torch.randn(tower.pixels(1, grids), dtype=torch.float64)
    with torch.no_grad():
        found = adapter(own(pixels))
        theirs = model.model.get_image_features(*padded(pixels, grids).values()).pooler_output
    assert relative(found, torch.cat(theirs)) <= 1e-5
    assert [len(tokens) for tokens in theirs] == [tower.tokens(grid) for grid in grids]


@pytest.mark.parametrize("name", [n for n in MODELS if n.startswith("gemma-4")])
def test_parameters_of_the_catalogue_are_transformers_own(name):
    model = resolve(name)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    found = trace(cell_of(name, kernel="sdpa", dtype="bfloat16", num_visual=256))
    audio = whole.model.audio_tower, whole.model.embed_audio
    own = sum(p.numel() for module in audio if module is not None for p in module.parameters())
    assert found.params == sum(p.numel() for p in whole.parameters()) - own
    said = f"tower: the audio tower beside it is left out with its projector, their {own:,} param"
    assert [flag.startswith(said) for flag in tower_of(model).flags] == [True] * bool(own)
    text = sum(p.numel() for p in whole.model.language_model.parameters())
    assert found.params_by_component["decoder"] == text
    active = text - (found.params - found.active_params)
    if name in PUBLISHED:
        assert (text, active) == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_closed_form_is_the_count(kind, pass_, tmp_path):
    """Of the whole model, and of systems that read its parts."""
    name = small_lvlm("gemma4", tmp_path, **KINDS[kind][0])
    for system in (
        "s_attn",
        "d_attn",
        "d_attn_cascade",
        "gated_xattn",
        "saisa",
        "moh",
        "hyper_attn",
    ):
        scope = "lvlm" if system == "s_attn" else "decoder"
        fields = {"settings": settings_of(system), "scope": scope, "dtype": "float32"}
        found = trace(cell_of(name, attention=system, **fields, **{"pass": pass_}))
        assert found.flops == found.model_flops, system


def test_a_cache_holds_windows_and_wide_heads():
    """A local layer its window of 16 heads of 256, a global one all tokens of 4 of 512."""
    fields = {"dtype": "bfloat16", "num_visual": 8192, "pass": "decode"}
    found = predict(cell_of("gemma-4-31b", **fields), "h100-80gb")
    tokens = 8192 + 64
    local, wide = 2 * 16 * 256 * 1023, 2 * 4 * 512 * tokens
    assert found.metrics["kv_cache_bytes"] == 2 * (50 * local + 10 * wide)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", [{"pass": "train", "checkpoint": True}, {"cache": True}])
def test_predicted_is_measured(kind, fields, tmp_path):
    name = small_lvlm("gemma4", tmp_path, num_hidden_layers=4, **KINDS[kind][0])
    cell = cell_of(name, kind, dtype="float32", num_text=5, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert_measured(cell, 0.01)


def test_tiles_lora_and_a_skewed_router(tmp_path):
    """Tiles route the same; adapters leave experts alone; equal scores choose the same experts."""
    from workbench.lvlm.context import TILE

    name = small_model("gemma4", tmp_path, **EXPERTS)
    fields = {"scope": "decoder", "dtype": "float32", "num_text": 5, "num_visual": TILE}
    flat, tiled = (
        build(cell_of(name, kernel="sdpa", tiled=tiled, **fields)) for tiled in (False, True)
    )
    tiled.module.load_state_dict(
        {
            k.replace(".mlp.", ".mlp.inner.").replace(".experts.", ".experts.inner."): v
            for k, v in flat.module.state_dict().items()
        }
    )
    for one, other in zip(tiled.inputs, flat.inputs, strict=True):
        one.data.copy_(other.data)
    assert relative(tiled.run_forward()[0], flat.run_forward()[0]) <= 1e-4
    small = {**fields, "num_visual": 32}
    trained = cell_of(name, lora="r=2,alpha=4,targets=all-linear", **small, **{"pass": "train"})
    trained = predict(trained, "cpu")
    assert "lora: experts are no linear layers, and are left as they are" in trained.flags
    assert any(flag.startswith("attention: causal; in the local layers") for flag in trained.flags)
    alike = build(cell_of(name, experts_skew=True, **small))
    assert all(not p.layer.router.proj.weight.any() for p, _, _ in alike.layers)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_kv_shared_layers": 1}, "num_kv_shared_layers 1 with hidden_size_per_layer_input 0"),
        ({**EMBEDDED, "num_kv_shared_layers": 8}, "num_kv_shared_layers 8: layers that share"),
        ({**EMBEDDED, "num_kv_shared_layers": 6}, "layer types producing a cache is different"),
        ({**EMBEDDED, "hidden_size_per_layer_input": -1}, "hidden_size_per_layer_input"),
        ({**EMBEDDED, "pad_token_id": None}, "pad_token_id None: the id whose embeddings for"),
        ({**EMBEDDED, "vocab_size_per_layer_input": 3, "pad_token_id": 3}, "pad_token_id 3: the"),
        ({"use_bidirectional_attention": "all"}, "'all': every mask here is causal"),
        ({**EXPERTS, "top_k_experts": 9}, "top_k_experts 9: at most num_experts 8"),
        ({"enable_moe_block": True}, "num_experts is missing; enable_moe_block needs it"),
    ],
)
def test_sizes_that_nothing_expresses_are_one_line(fields, message, tmp_path):
    file = Path(small_lvlm("gemma4", tmp_path)) / "config.json"
    whole = json.loads(file.read_text())
    whole["text_config"].update(fields)
    file.write_text(json.dumps(whole))
    with pytest.raises(RequestError, match=message):
        resolve(str(file.parent))
