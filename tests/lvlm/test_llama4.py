"""Llama 4: transformers' own results, chunks, experts, scaled queries, and what has no place."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.lvlm import test_composed, test_pruning
from tests.lvlm.definitions import settings_of
from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.oracle import widen_norms
from tests.lvlm.scaled import factors
from tests.lvlm.test_kinds import assert_composed
from tests.lvlm.test_oracles import assert_equal_to_oracle, relative
from tests.small import small_lvlm, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.layout import take_rows
from workbench.lvlm.models import resolve
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported

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
    """Three layers of four in chunks of 12: pairs that the mask allows, and the cache."""
    name = small_model("llama4", tmp_path)
    cell = cell_of(name, scope="decoder", num_visual=32, num_text=8)
    found = trace(cell)
    whole, chunked = 40 * 41 // 2, 3 * (12 * 13 // 2) + 4 * 5 // 2
    hidden = 4 * 40**2 - 3 * chunked - whole
    assert found.flops - found.flops_causal == 4 * 4 * 8 * hidden
    step = predict(cell.replace(pass_="decode"), "cpu")
    assert step.metrics["kv_cache_bytes"] == 4 * 2 * 2 * 8 * (3 * 11 + 40)


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_biased", "d_attn_full", "moh"])
@pytest.mark.parametrize("tokens", [31, 35, 36, 37])
def test_a_step_reads_its_own_chunk(system, tokens, tmp_path):
    """Of 11 cached tokens in chunks of 12: all, none (a chunk begins), or those from 36 on."""
    cell = make_cell(
        model=small_model("llama4", tmp_path),
        attention=system,
        kernel="eager",
        dtype="float32",
        num_visual=20,
        num_text=tokens - 20,
        layer=0,
        **{"pass": "decode"},
    )
    seen = [i for i in range(tokens) if i // 12 == tokens // 12]
    if system == "d_attn":  # Without RoPE all images are seen.
        seen = [*range(20), *(i for i in seen if i >= 20)]
    found = trace(cell)
    heads = 3 if system == "moh" else 4
    linear = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 40)
    assert found.flops == found.model_flops == linear + 4 * heads * 8 * (len(seen) + 1)
    held = 11 if system != "d_attn" else 20 + min(11, tokens - 20)
    assert found.kv_cache_bytes == 4 * 2 * 2 * 8 * held


@pytest.mark.parametrize("system", ["fastv", "pyramid_drop"])
def test_a_step_after_tokens_have_left_stands_at_its_position(system, tmp_path):
    """Its last layer has no RoPE, and scales the query of the next place in the sequence."""
    settings = "stages=4" if system == "pyramid_drop" else "at=1"
    cell = test_pruning.cell_of(
        tmp_path, system, "llama4", kernel="eager", num_text=10, settings=settings
    )
    prefilled = test_pruning.exact(cell)
    decoded = test_pruning.exact(cell.replace(num_text=9, **{"pass": "decode"}))
    decoded.module.load_state_dict(prefilled.module.state_dict())
    layer = decoded.module.layers[3]
    places, caches = prefilled.context.layout.length - 1, []
    row = prefilled.module.layers[3]
    handle = row.register_forward_pre_hook(lambda _, inputs: caches.append(inputs))
    with torch.no_grad():
        prefilled.run_forward()
        handle.remove()
        ((rows, positions),) = caches
        wanted = row(rows, positions)[0][:, -1:]
        if system == "pyramid_drop":  # It ranks and gathers first.
            rows = take_rows(rows, row.choose(rows, positions))
        parts = prefilled.layers[3][0]
        x = parts.input_norm(rows[:, :-1])
        layer.keys.copy_(parts.key(x)[:, :, -layer.keys.shape[2] :])
        layer.values.copy_(parts.value(x)[:, :, -layer.values.shape[2] :])
        (found,) = layer(rows[:, -1:])
    assert layer.keys.shape[2] < places
    assert relative(found, wanted) <= 1e-9


@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "train"},
        {"pass": "train", "checkpoint": True},
        {"cache": True},
        {"pass": "decode"},
        {"pass": "train", "lora": "r=2"},
        {"pass": "train", "lora": "r=2", "weights_dtype": "int8"},
        {"attention": "d_attn"},
        {"attention": "d_attn", "pass": "train", "checkpoint": True},
        {"attention": "d_attn", "cache": True},
        {"attention": "d_attn", "pass": "decode"},
        {"attention": "d_attn_full", "pass": "train", "lora": "r=2"},
        {"attention": "hyper_attn", "pass": "decode"},
        {"attention": "fastv", "cache": True},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    name = small_lvlm("llama4", tmp_path, num_hidden_layers=8)
    cell = cell_of(name, num_visual=24, num_text=5, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert whole.flops == whole.model_flops or cell.checkpoint
    measured, predicted = assert_measured(cell, 0.02)
    said = [flag for flag in predicted.flags if flag.startswith("experts: every token")]
    assert said == [flag for flag in measured.flags if flag.startswith("experts: every token")]
    assert "all 4, as transformers has it, of which the router chooses 1" in said[0]
    for name in ("lora", "weights_dtype"):
        wanted = f"{name}: experts and their router, which gives scores of them all, are no linear"
        assert any(f.startswith(wanted) for f in predicted.flags) == (name in fields)


COMPOSED = ("s_attn", "d_attn_biased", "d_attn_full", "hyper_attn", "moh", "saisa", "streaming")


@pytest.mark.parametrize("pass_", ["train", "decode"])
@pytest.mark.parametrize("system", COMPOSED)
def test_composed_is_whole(system, pass_, tmp_path):
    cell = test_composed.cell_of(system, tmp_path, "llama4", 20, layout="T,V,T", **{"pass": pass_})
    assert_composed(cell)


@pytest.mark.parametrize("scheme", ["int8", "fp8", "bfloat16"])
def test_a_narrow_cache_is_read_from_its_chunk_on(scheme, tmp_path):
    """Of 11 tokens in the cache the last 6 are of the chunk of the 43rd token."""
    cell = cell_of(
        small_model("llama4", tmp_path), scope="layer", layer=0, num_visual=33, num_text=9
    )
    decode = cell.replace(pass_="decode", cache_dtype=scheme)
    workload = build(decode)
    layer, others = workload.module, build(decode)
    others.module.load_state_dict(layer.state_dict())
    others.inputs[0].copy_(workload.inputs[0])
    for name, buffer in layer.named_buffers():
        copy = others.module.get_buffer(name).copy_(buffer)
        if buffer.ndim == 4:
            assert buffer.shape[2] == 11
            copy[:, :, :5] = 0  # What nobody reads.
    with torch.no_grad():
        (found,), (wanted,) = workload.run_forward(), others.run_forward()
        assert torch.equal(found, wanted)
        others.module.get_buffer("keys")[:, :, 5] = 0
        others.module.get_buffer("values")[:, :, 5] = 0
        assert not torch.equal(found, others.run_forward()[0])
    traced = trace(decode)
    assert traced.flops == traced.model_flops


@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_systems_on_scout(system):
    """At 400 rows of text behind 74,000 visual tokens: what has a place, and what has none."""
    cell = make_cell(
        model=SCOUT,
        attention=system,
        scope="decoder",
        num_visual=74_000,
        num_text=400,
        kernel="eager",
    )
    refused = {
        "biformer": "keys of a visual row itself, and so would the chunk",
        "lsda": "keys of a visual row itself, and so would the chunk",
        "cmai": "hides visual tokens by what text reads, and so does the chunk",
        "lightning": "no scores and so no normed queries and keys",
    }
    if system in refused:
        with pytest.raises(Unsupported, match=f"^{system} .*{refused[system]}.* llama4_text"):
            build(cell, "meta")
        return
    found = trace(cell)
    assert found.flops == found.model_flops > found.flops_causal == found.model_flops_causal


def test_only_layers_without_rope_scale_queries(tmp_path):
    workload = build(cell_of(small_model("llama4", tmp_path), scope="decoder"))
    context, places = workload.context, workload.context.layout.sequence
    found = [context.query_factor(index, "sequence") for index in range(4)]
    assert found[:3] == [None] * 3
    wanted = factors(context.model.config, places)
    assert wanted.max() > 1.1
    assert torch.allclose(found[3].double().flatten(), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"use_qk_norm": False}, (None, None)),
        ({"no_rope_layers": [1, 1, 1, 1]}, ("Llama4TextL2Norm", "Llama4TextL2Norm")),
        ({"no_rope_layers": [1, 0, 1, 0]}, ("Llama4TextL2Norm", None)),
        ({"attn_temperature_tuning": False}, ("Llama4TextL2Norm", None)),
    ],
)
@pytest.mark.parametrize("system", ["d_attn", "d_attn_full", "s_attn", "moh"])
@pytest.mark.parametrize("layer", [0, 3])
def test_other_fields_of_the_config(fields, parts, system, layer, tmp_path):
    cell = make_cell(
        model=small_model("llama4", tmp_path, **fields),
        attention=system,
        kernel="eager",
        dtype="float64",
        layout="T,V,T",
        num_visual=33,
        num_text=9,
        layer=layer,
        settings=settings_of(system),
        **{"pass": "train"},
    )
    workload = build(cell)
    widen_norms(workload.module)
    norm = workload.layers[0][0].q_norm
    assert (norm if norm is None else type(norm).__name__) == parts[layer > 0]
    scaled = workload.context.query_factor(layer, "text")
    assert (scaled is None) == (
        layer == 0
        or ("no_rope_layers" in fields and norm is not None)
        or "attn_temperature_tuning" in fields
    )
    assert_equal_to_oracle(workload)


YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}


def test_a_rope_that_makes_vectors_longer_before_their_norm_is_refused(tmp_path):
    name = small_model("llama4", tmp_path, rope_parameters=YARN)
    build(cell_of(name, scope="decoder"))
    with pytest.raises(Unsupported, match=r"^d_attn: llama4_text norms .* RoPE \(yarn\) that"):
        build(cell_of(name, scope="decoder", attention="d_attn"))
    without = small_model("llama4", tmp_path / "b", rope_parameters=YARN, use_qk_norm=False)
    build(cell_of(without, scope="decoder", attention="d_attn"))


@pytest.mark.parametrize("fields", [{"ring": 2}, {"ulysses": 2}])
def test_ranks_would_take_places_among_their_rows_for_positions(fields, tmp_path):
    kinds = {"layer_types": ["full_attention"] * 4} if "ulysses" in fields else {}
    name = small_model("llama4", tmp_path, attention_chunk_size=64, **kinds)
    cell = cell_of(
        name,
        scope="decoder",
        kernel="sdpa",
        num_visual=32,
        num_text=8,
        world_size=2,
        **{"pass": "train"},
    )
    with pytest.raises(Unsupported, match=r"s_attn on .* scale queries by their places"):
        trace(cell.replace(**fields))
    if "ring" in fields:  # Ranks of D-Attn have all text rows, at their positions.
        assert trace(cell.replace(attention="d_attn", **fields)).flops > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tiled": True}, "tiled: the experts of llama4_text are one call"),
        ({"kernel": "flash", "num_visual": 9216}, "the chunk of llama4_text needs"),
        ({"kernel": "flash_attention_2", "num_visual": 9216}, "has no chunks, which llama4_text"),
        (
            {"attention": "d_attn", "kernel": "sdpa", "num_text": 9216},
            "'sdpa' has no chunk over two streams, .*; use eager, flex or math",
        ),
    ],
)
def test_what_has_no_place_is_one_line(fields, message):
    cell = make_cell(model=SCOUT, scope="layer", layer=0, **{"num_visual": 64, **fields})
    with pytest.raises(Unsupported, match=message):
        build(cell, "meta")
