"""ERNIE 4.5 VL: rows meet the experts of their kind, as transformers' whole model has it."""

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText
from transformers.models.ernie4_5_vl_moe import modeling_ernie4_5_vl_moe as theirs
from transformers.models.ernie4_5_vl_moe.image_processing_pil_ernie4_5_vl_moe import (
    Ernie4_5_VLMoeImageProcessorPil,
    smart_resize,
)

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.oracle import widen_norms
from tests.lvlm.test_oracles import relative
from tests.small import small_lvlm, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.pictures import fields_of, look
from workbench.lvlm.towers import Grid, tower_of
from workbench.probe.counting.trace import trace
from workbench.visual import VISIONS
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.pictures import Pictures

FAMILY = "ernie4_5_vl_moe"
DECOMPOSED = tuple(name for name in sorted(SYSTEMS) if name.startswith("d_attn"))
NAME = "ernie-4.5-vl-28b-a3b"
FRONT = VISIONS["ernie-4.5-vl"]
SIDES = st.integers(1, 4000)
GRIDS = (Grid(1, 4, 6), Grid(1, 4, 6), Grid(4, 4, 2, 1.0), Grid(1, 10, 4))


def cell_of(name, **fields):
    own = {"scope": "lvlm", "kernel": "eager", "dtype": "float32", "num_visual": 64}
    return make_cell(model=name, **{**own, "num_text": 5, **fields})


def test_parameters_of_the_catalogue_are_transformers_own():
    model = resolve(NAME)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    traced = trace(cell_of(NAME, num_visual=1024, dtype="bfloat16"))
    assert traced.params == sum(p.numel() for p in whole.parameters()) == 29_399_294_336
    text = sum(p.numel() for p in whole.get_decoder().parameters())
    assert traced.params_by_component["decoder"] == text
    # Of 27 layers: 58 of 64 experts of text, and all of the others with their router and its bias.
    expert = 3 * 2560
    idle = 58 * expert * 1536 + 64 * expert * 512 + 64 * 2560 + 64
    assert traced.active_params == traced.params - 27 * idle
    assert traced.flops == traced.model_flops
    assert not model.flags


def test_routers_are_held_in_float32_as_transformers_holds_them():
    traced = trace(cell_of(NAME, scope="decoder", num_visual=0, dtype="bfloat16"))
    routers = 27 * 2 * (64 * 2560 + 64)
    held = traced.timeline.of_kind("weights")
    assert held == 2 * traced.params + 2 * routers
    assert theirs.Ernie4_5_VLMoePreTrainedModel._keep_in_fp32_modules_strict == [
        "gate.weight",
        "moe_statics",
    ]


def given_to_theirs(visual, ids, pixels, kind=1, grid=(1, 16, 16)):
    """Ids of a sample whose image comes first, and what transformers' model takes beside them."""
    token = {1: 96, 2: 95}[kind]
    asked = torch.cat([torch.full((len(ids), visual), token), ids], 1)
    kinds = torch.zeros_like(asked)
    kinds[:, :visual] = kind
    word = {1: ("pixel_values", "image_grid_thw"), 2: ("pixel_values_videos", "video_grid_thw")}
    named = dict(zip(word[kind], (pixels, torch.tensor([grid] * len(ids))), strict=True))
    return asked, {**named, "mm_token_type_ids": kinds, "moe_mm_token_type_ids": kinds}


@pytest.mark.parametrize("batch", [1, 2])
def test_greedy_generation_is_transformers_own(batch, tmp_path):
    name = small_lvlm(FAMILY, tmp_path)
    model = write_weights(name, dtype=torch.float32, seed=5)
    workload = build(cell_of(name, weights=name, batch=batch))
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    asked, beside = given_to_theirs(64, ids, pixels)
    with torch.no_grad():
        expected = model(input_ids=asked, **beside).logits
        assert relative(workload.module(pixels, ids), expected) <= 1e-4
        wanted = model.generate(input_ids=asked, **beside, max_new_tokens=4, **GREEDY)
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)
    ids = extend(
        ids, 4, lambda num: build(cell_of(name, weights=name, batch=batch, num_text=num)), pixels
    )
    assert torch.equal(ids, wanted[:, 64:])


@pytest.mark.parametrize("frames", [4, 5])
def test_a_video_computes_what_transformers_does(frames, tmp_path):
    """Pairs of frames, the last one twice where it has no other."""
    name = small_lvlm(FAMILY, tmp_path)
    (tmp_path / f"{FAMILY}-lvlm" / "video_preprocessor_config.json").write_text(
        json.dumps({"size": {"shortest_edge": 28 * 28, "longest_edge": 12 * 28 * 28}})
    )
    model = write_weights(name, dtype=torch.float32, seed=5)
    pictures = Pictures(resolution="100x60", frames=frames)
    shown = fields_of(name, pictures, "V,T")
    workload = build(cell_of(name, weights=name, **shown), pictures=pictures)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    (grid,) = look(tower_of(resolve(name)), pictures).grids
    assert grid.steps == frames + frames % 2
    asked, beside = given_to_theirs(shown["num_visual"], ids, pixels, 2, grid[:3])
    with torch.no_grad():
        expected = model(input_ids=asked, **beside).logits
    assert relative(workload.module(pixels, ids), expected) <= 1e-4


def test_gradients_are_transformers_own(tmp_path):
    name = small_lvlm(FAMILY, tmp_path)
    model = write_weights(name, dtype=torch.float32, seed=5)
    workload = build(cell_of(name, weights=name))
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    asked, beside = given_to_theirs(64, ids, pixels)
    logits, expected = workload.module(pixels, ids), model(input_ids=asked, **beside).logits
    upstream = torch.randn_like(expected)
    logits.backward(upstream)
    expected.backward(upstream)
    own = workload.module.decoder.layers[1].layer
    other = model.model.language_model.layers[1]
    by_name = dict(own.named_parameters())
    for key, parameter in other.named_parameters():
        if parameter.requires_grad:
            assert relative(by_name[key].grad, parameter.grad) <= 1e-4


@pytest.mark.parametrize("layout", ["V,T", "T,V,T", "V,T,V,T"])
@pytest.mark.parametrize("num_visual", [0, 6])
def test_a_layer_is_transformers_own_in_any_layout(layout, num_visual, tmp_path):
    name = small_model(FAMILY, tmp_path)
    cell = make_cell(
        model=name,
        scope="decoder",
        kernel="eager",
        dtype="float32",
        num_visual=num_visual,
        num_text=8,
        layout=layout,
    )
    workload = build(cell)
    model = resolve(name)
    model.config._attn_implementation = "eager"
    layer = theirs.Ernie4_5_VLMoeDecoderLayer(model.config, 1)
    own = workload.module.layers[1].layer
    layer.load_state_dict(own.state_dict())
    for module in (own, layer):
        widen_norms(module)
    sequence = torch.randn(2, 8 + num_visual, 32)
    tables = tuple(x.float() for x in workload.context.rope(1, "sequence"))
    kinds = torch.zeros(2, 8 + num_visual, dtype=torch.int64)
    kinds[:, workload.context.layout.positions(visual=True)] = 1
    mask = torch.full((8 + num_visual,) * 2, float("-inf")).triu(1)[None, None]
    wanted = layer(
        sequence, position_embeddings=tables, attention_mask=mask, moe_mm_token_type_ids=kinds
    )
    found = own(sequence, position_embeddings=tables, attention_mask=mask)
    assert relative(found, wanted) <= 1e-5


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
@pytest.mark.parametrize("scope", ["layer", "decoder", "lvlm"])
def test_costs_depend_on_the_kind_of_a_row(scope, pass_, tmp_path):
    """Closed forms are the counts, and a row of text in a visual one's place costs the more."""
    name = small_lvlm(FAMILY, tmp_path)
    cell = cell_of(name, scope=scope, batch=2, **{"pass": pass_})
    traced = trace(cell)
    assert traced.flops == traced.model_flops
    if scope == "decoder" and pass_ == "forward":
        text = trace(cell.replace(num_visual=0, num_text=69))
        layers, active, more = 2, 2, 2 * 3 * 32 * (16 - 8)  # Three matrices, eight wider.
        assert text.flops - traced.flops == 2 * 64 * layers * active * more


@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "train"},
        {"pass": "train", "lora": "r=2", "checkpoint": True},
        {"cache": True},
        {"pass": "decode"},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    kinds = ["dense"] + ["sparse"] * 5
    name = small_lvlm(FAMILY, tmp_path, num_hidden_layers=6, mlp_layer_types=kinds)
    cell = cell_of(name, num_visual=256, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    _, predicted = assert_measured(cell, 0.05, ("flops", "params"))
    assert any("as many of visual rows, 8 wide" in flag for flag in predicted.flags)


def test_the_tower_is_transformers_own_and_so_are_its_costs(tmp_path):
    name = small_lvlm(FAMILY, tmp_path)
    model = resolve(name)
    tower, context = tower_of(model), build(cell_of(name, num_visual=0)).context
    ours, adapter = tower.build(context, GRIDS, True)
    pixels = torch.randn(tower.pixels(1, GRIDS))
    sizes = torch.tensor([grid[:3] for grid in GRIDS])
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            features = ours(pixels)
        assert counter.get_total_flops() == tower.tower_flops(GRIDS)
        with FlopCounterMode(display=False) as counter:
            made = adapter(features)
        assert counter.get_total_flops() == tower.adapter_flops(GRIDS)
        assert relative(made, adapter.resampler(features, sizes)) <= 1e-6
        kind = theirs.Ernie4_5_VLMoeVisionTransformerPretrainedModel
        other = kind(tower.config)
        weights = {k.replace(".inner.", "."): v for k, v in ours.tower.state_dict().items()}
        other.load_state_dict(weights)
        assert relative(features, other(pixels, grid_thw=sizes).last_hidden_state) <= 1e-5
    assert made.shape == (6 + 6 + 4 + 10, 32)


@pytest.mark.parametrize("frozen", ["tower", "tower,adapter"])
def test_what_a_frozen_part_leaves_out(frozen, tmp_path):
    cell = cell_of(small_lvlm(FAMILY, tmp_path), frozen=frozen, **{"pass": "train"})
    traced = trace(cell)
    assert traced.flops == traced.model_flops


def test_positions_are_transformers_own(tmp_path):
    tower = tower_of(resolve(small_lvlm(FAMILY, tmp_path)))
    grids = (Grid(1, 4, 6), Grid(4, 4, 2, 1.0))
    layout = Layout(6 + 4, 11, "T,V6,T,V4,T")
    first, second = (s.start for s in layout.visual_segments)
    kinds = torch.zeros(1, layout.length, dtype=torch.int64)
    kinds[0, first : first + 6], kinds[0, second : second + 4] = 1, 2
    fake = SimpleNamespace(config=SimpleNamespace(vision_config=tower.config))
    model = theirs.Ernie4_5_VLMoeModel
    fake.get_vision_position_ids = model.get_vision_position_ids.__get__(fake)
    sizes = [torch.tensor([grid[:3]]) for grid in grids]
    places, _ = model.get_rope_index(fake, kinds, kinds, *sizes)
    assert torch.equal(tower.positions(layout, grids), places[:, 0])


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.integers(1, 200))
def test_tokens_are_its_processors(width, height, frames):
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(RequestError, match="200 to 1"):
            FRONT.tokens_of_image(width, height)
        return
    high, wide = smart_resize(height, width, 28, 56 * 56, 28 * 28 * 6177)
    assert FRONT.resized(width, height) == (wide, high)
    high, wide = smart_resize(height, width, 28, 299 * 28 * 28, 1196 * 28 * 28)
    pairs = (frames + frames % 2) // 2
    assert FRONT.tokens_of_video(width, height, frames) == pairs * high * wide // 28**2


def test_pixels_are_its_processor_s(tmp_path):
    tower = tower_of(resolve(small_lvlm(FAMILY, tmp_path)))
    picture = Image.effect_noise((200, 110), 70).convert("RGB")
    batch = Ernie4_5_VLMoeImageProcessorPil()([picture], return_tensors="pt")
    assert torch.equal(tower.preprocess([picture], 0), batch["pixel_values"])
    assert tower.of_image(200, 110)[0][:3] == tuple(batch["image_grid_thw"][0].tolist())
    (grids,) = tower.of_video(200, 110, 3, 1.0)
    assert tower.preprocess([picture] * 3, 3).shape == tower.pixels(1, grids)


def test_frames_are_sampled_by_its_rule():
    assert [FRONT.sampled(*v) for v in ((300, 30.0, 1.0), (9000, 30.0, 1.0), (9, 3.0, 1.0))] == [
        16,
        180,
        9,
    ]
    assert any("draws the time" in n for n in tokens(NAME, resolution="64x64", frames=4)["notes"])


@pytest.mark.parametrize("name", sorted(set(SYSTEMS) - {"s_attn", *DECOMPOSED}))
def test_other_systems_are_refused_by_name(name):
    with pytest.raises(Unsupported, match=f"{name}: ernie4_5_vl_moe_text has experts for visual"):
        build(cell_of(NAME, attention=name, scope="decoder"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"experts_skew": True}, "has two routers a layer"),
        ({"experts_skew": True, "attention": "d_attn"}, "has two routers a layer"),
        ({"tiled": True}, "experts of visual rows and of text are one call each"),
        ({"dtype": "float64"}, "one call of torch's grouped matmul"),
        ({"dtype": "float64", "attention": "d_attn"}, "one call of torch's grouped matmul"),
        ({"ulysses": 2, "world_size": 2}, "visual rows of .* meet other experts"),
    ],
)
def test_what_is_not_modelled_is_refused(fields, reason, tmp_path):
    name = small_model(FAMILY, tmp_path)
    with pytest.raises((RequestError, Unsupported), match=reason):
        build(cell_of(name, scope="decoder", **fields), device="meta")


@pytest.mark.parametrize(
    ("section", "changes", "reason"),
    [
        ("text_config", {"mlp_layer_types": ["dense"]}, "dense or sparse for each of the 3"),
        ("text_config", {"moe_intermediate_size": [16]}, "two, of the experts of text and"),
        ("vision_config", {"temporal_merge_size": 3}, "tokens are of pairs of frames, 2"),
        ("text_config", {"moe_k": 5}, "moe_k 5: at most moe_num_experts 4"),
    ],
)
def test_what_makes_no_sense_is_one_line(section, changes, reason, tmp_path):
    name = small_lvlm(FAMILY, tmp_path)
    config = tmp_path / f"{FAMILY}-lvlm" / "config.json"
    fields = json.loads(config.read_text())
    fields[section] |= changes
    config.write_text(json.dumps(fields))
    with pytest.raises(RequestError) as refusal:
        tower_of(resolve(name))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_fields_of_the_catalogue_are_its_class_s_own():
    defaults = theirs.Ernie4_5_VLMoeModel.config_class().get_text_config().to_dict()
    fields = MODELS[NAME].fields
    wanted = {k: v for k, v in fields.items() if k != "rope_parameters"}
    assert {k: defaults[k] for k in wanted} == wanted
