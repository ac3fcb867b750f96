"""Granite's four constants, and features that enter between layers of its decoder."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from tests.lvlm.generation import GREEDY, extend, write_random, write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.test_oracles import relative
from tests.small import small_model, small_wrapper
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.places import places_of
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported


def cell_of(name, **fields):
    own = {"scope": "decoder", "kernel": "eager", "dtype": "float32", "num_visual": 33}
    return make_cell(model=name, **{**own, "num_text": 9, **fields})


def test_greedy_generation_of_the_text_model_is_transformers_own(tmp_path):
    name = small_model("granite", tmp_path)
    model = write_random(name, lambda: AutoModelForCausalLM.from_config(resolve(name).config))
    ids = torch.randint(90, (1, 21))
    cell = cell_of(name, weights=name, num_visual=0, num_text=21, dtype="float64")
    workload = build(cell)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        wanted = model.generate(input_ids=ids, max_new_tokens=3, **GREEDY)
        assert relative(workload.module(workload.inputs[0], ids), expected) <= 1e-5
    ids = extend(ids, 3, lambda num: build(cell.replace(num_text=num)), workload.inputs[0])
    assert torch.equal(ids, wanted)
    assert not any(flag.startswith("logit_scale") for flag in predict(cell, "cpu").flags)


def test_visual_embeddings_are_multiplied_as_text_is(tmp_path):
    """transformers multiplies all rows that enter; of HiMix's features, which do not, none."""
    name = small_model("granite", tmp_path)
    model = write_random(name, lambda: AutoModelForCausalLM.from_config(resolve(name).config))
    workload = build(cell_of(name, weights=name, dtype="float64", layout="V,T"))
    visual, ids = workload.inputs
    with torch.no_grad():
        own = torch.cat([visual, model.model.embed_tokens(ids)], 1)
        expected = model(inputs_embeds=own).logits
        assert relative(workload.module(visual, ids), expected) <= 1e-5
    himix = build(cell_of(name, attention="himix", logits="text"))
    assert himix.module.visual_scale == 1.0
    settings = "every=2,pool=2"
    pooled = build(cell_of(name, attention="cross_lmm", num_visual=36, settings=settings))
    assert pooled.module.visual_scale == 3.0
    originals, some = pooled.module._scaled((torch.ones(1), torch.ones(2)))
    assert originals.tolist() == [3.0]
    assert some.tolist() == [3.0, 3.0]


ALONE = ("granite-vision-3.3-2b", "granite-vision-4.1-4b", "granite-for-docling-500m")


@pytest.mark.parametrize("name", ALONE)
def test_the_decoder_alone_is_transformers_own(name):
    model = resolve(name)
    config = model.config
    if config.model_type != "granite":  # Its text model has no class of its own with a head.
        fields = {k: v for k, v in config.to_dict().items() if k != "model_type"}
        config = type(resolve("granite-vision-3.3-2b").config)(**fields)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(config)
    found = trace(cell_of(name, dtype="bfloat16", num_visual=6000))
    assert found.params == sum(p.numel() for p in whole.parameters())
    assert found.flops == found.model_flops


def test_which_class_around_it_divides_logits(tmp_path):
    """LLaVA-NeXT's leaves them, which a flag says; those of their own divide them."""
    said = {}
    for kind in ("granite_vision", "granite4_vision", "granite_docling"):
        name = small_wrapper(kind, tmp_path)
        flags = predict(cell_of(name), "cpu").flags
        said[kind] = [flag for flag in flags if flag.startswith("logit_scale")]
        assert resolve(name).logit_scale == (None if kind == "granite_vision" else 0.25)
    assert said["granite4_vision"] == said["granite_docling"] == []
    assert said["granite_vision"] == [
        "logit_scale 0.25: its text model's own class multiplies logits with it, transformers' "
        "class of llava_next does not, and so does nothing here"
    ]


@pytest.mark.parametrize("field", ["embedding_multiplier", "residual_multiplier"])
def test_constants_that_make_no_sense_are_one_line(field, tmp_path):
    name = small_model("granite", tmp_path)
    file = Path(name, "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: 0}))
    with pytest.raises(RequestError, match=f"{field} 0: a number above 0$"):
        resolve(name)


def test_dropout_of_scores_is_not_run_and_a_flag_says_so(tmp_path):
    """As published: Granite Vision 3 states one of 0.1, with which fused kernels would train."""
    name = small_model("granite", tmp_path, attention_dropout=0.1)
    flag = "attention_dropout 0.1: is not run in training here"
    cell = cell_of(name, kernel="sdpa", **{"pass": "train"})
    assert flag in predict(cell, "h100-80gb").flags
    assert resolve(name).config.attention_dropout == 0.0
    build(cell).step()


@pytest.mark.parametrize("system", ["s_attn", "d_attn"])
def test_features_are_added_before_layers_that_the_config_names(system, tmp_path):
    """By hand: each Q-Former's tokens to visual rows, which are zeros before the first."""
    name = small_wrapper(
        "granite4_vision",
        tmp_path,
    )
    file = Path(name, "config.json")
    fields = json.loads(file.read_text()) | {"deepstack_layer_map": [[-2, 2], [-1, 1]]}
    file.write_text(json.dumps(fields))
    tower = tower_of(resolve(name))
    assert (tower.stacked, tower.order) == ((0, 1, 2, 4, 5, 7), [None, 1, 0, 2, 3, 4, 5])
    count = tower.tokens_each
    cell = cell_of(
        name, scope="lvlm", attention=system, num_visual=count, layout="T,V,T", dtype="float64"
    )
    assert [p.index for p in places_of(cell) if p.stacked] == [0, 1, 2, 4, 5, 7]
    workload = build(cell)
    pixels, ids = workload.inputs
    lvlm, decoder = workload.module, workload.module.decoder
    tiles = lvlm.adapter
    with torch.no_grad():
        (found,) = workload.run_forward()
        projectors = [*tiles.projector.layerwise_projectors, *tiles.projector.spatial_projectors]
        rows = lvlm.tower(pixels)
        tokens = [tiles.packed(q(x))[None] for q, x in zip(projectors, rows, strict=True)]
        before = dict(zip((2, 1, 3, 5, 6, 8), tokens, strict=True))
        layout = workload.context.layout
        text = decoder.embed_tokens(ids) * 3.0
        sequence = layout.join(torch.zeros_like(tokens[0]), text)
        visual = layout.positions(visual=True)
        for number, layer in enumerate(decoder.layers):
            if number in before:
                sequence = sequence.clone()
                sequence[:, visual] += before[number]
            texts = sequence[:, layout.positions(visual=False)]
            state = (sequence,) if system == "s_attn" else (sequence[:, visual], texts)
            state = layer(*state)
            sequence = state[0] if system == "s_attn" else layout.join(*state)
        wanted = decoder.lm_head(decoder.norm(sequence)) / 4.0
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("kind", ["granite4_vision", "granite_docling"])
@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_every_system_takes_them_or_is_refused_by_name(system, kind, tmp_path):
    name = small_wrapper(kind, tmp_path)
    count = tower_of(resolve(name)).tokens_each
    settings = {"fastv": "at=1", "pyramid_drop": "stages=2"}.get(system, "")
    cell = cell_of(name, scope="lvlm", attention=system, num_visual=count, settings=settings)
    if SYSTEMS[system].stacks:
        build(cell, "meta")
        return
    with pytest.raises(Unsupported, match=rf"{system}: the tower of granite.* adds features"):
        build(cell, "meta")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"deepstack_layer_map": None}, "deepstack_layer_map None, spatial_target_layers"),
        ({"deepstack_layer_map": [[-2, 3], [-1, 0]]}, "all different, of its 9"),
        ({"deepstack_layer_map": [[-2, 9], [-1, 0]]}, "all different, of its 9"),
        ({"spatial_target_layers": [3, 5, 6]}, "and 4 more of the decoder's"),
        ({"deepstack_layer_map": [[-9, 2], [-1, 0]]}, "vision_feature_layer -9: the tower of"),
        ({"vision_feature_select_strategy": "default"}, "'default': full, for SigLIP has no"),
        ({"downsample_rate": "1/3"}, "downsample_rate '1/3': two sides, such as '4/8'"),
        ({"downsample_rate": "3/6"}, "8 patches a side are no whole windows of 6"),
    ],
)
def test_what_does_not_fit_is_one_line(fields, message, tmp_path):
    file = Path(small_wrapper("granite4_vision", tmp_path), "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    with pytest.raises(RequestError, match=message) as refusal:
        tower_of(resolve(str(file.parent)))
    assert "\n" not in str(refusal.value)


def docling(folder, **fields):
    """A small folder of Granite for Docling with these fields of its config.json."""
    file = Path(small_wrapper("granite_docling", folder), "config.json")
    stated = json.loads(file.read_text())
    tower = stated["vision_config"] | fields.pop("tower", {})
    file.write_text(json.dumps(stated | fields | {"vision_config": tower}))
    return str(file.parent)


@pytest.mark.parametrize("fine", [False, True])
def test_the_route_that_the_processor_s_file_asks_for_is_run(fine, tmp_path):
    """Four times as many tokens on the fine one; what is not run is held and not trained."""
    name = docling(tmp_path)
    Path(name, "preprocessor_config.json").write_text(json.dumps({"fine_route": fine}))
    model = write_weights(name)
    tower = tower_of(resolve(name))
    assert tower.tokens_each == (16 if fine else 4)
    assert tower.flags == [
        f"adapter: its {'fine' if fine else 'coarse'} route is run, its "
        f"{'coarse' if fine else 'fine'} one is held",
        "adapter: the router between its routes is held, not run; transformers runs it",
    ]
    cell = cell_of(
        name,
        scope="lvlm",
        num_visual=tower.tokens_each,
        weights=name,
        dtype="float64",
        layout="V,T",
    )
    workload = build(cell)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    inputs = torch.cat([torch.full((1, cell.num_visual), 96), ids], 1)
    extra = {"pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool)}
    if fine:
        extra["tile_fine_mask"] = torch.ones(1, dtype=torch.bool)
    (found,) = workload.run_forward()
    with torch.no_grad():
        wanted = model(input_ids=inputs, pixel_values=pixels[None], **extra).logits
    assert relative(found, wanted) <= 1e-4
    costs = trace(
        cell_of(name, scope="lvlm", num_visual=2 * tower.tokens_each, **{"pass": "train"})
    )
    assert costs.flops == costs.model_flops
    assert costs.params == sum(p.numel() for p in model.parameters())


def test_a_model_without_the_fine_route_has_fewer_parameters(tmp_path):
    """As the larger one is said to be; without a router too."""
    name = docling(tmp_path, tower={"use_fine_route": False}, density_router_hidden_size=None)
    tower = tower_of(resolve(name))
    assert tower.flags == []
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(resolve(name).whole)
    found = trace(cell_of(name, scope="lvlm", num_visual=tower.tokens_each))
    assert found.params == sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize(
    ("tower", "images", "message"),
    [
        (
            {"deepstack_visual_indexes": [0, 0]},
            {},
            r"deepstack_visual_indexes \[0, 0\]: different",
        ),
        ({"deepstack_visual_indexes": [2]}, {}, r"different layers of the tower, 0 to 1, at most"),
        ({"scale_factor": 3}, {}, "scale_factor 3: even, for the fine route"),
        ({"scale_factor": 6}, {}, "scale_factor 6: 4 patches a side are no multiple of 6"),
        (
            {"use_fine_route": False},
            {"fine_route": True},
            "fine_route true, but config.json has use_fine_route false",
        ),
        ({}, {"fine_route": 1.5}, "fine_route 1.5: true or false"),
        ({}, {"dense_max_patches": 999}, "dense_max_patches: at most 256"),
        ({}, {"dense_max_scale": -1.0}, "dense_scale -1.0: a number from 0"),
    ],
)
def test_what_does_not_fit_docling_is_one_line(tower, images, message, tmp_path):
    name = docling(tmp_path, tower=tower, density_router_hidden_size=None)
    Path(name, "preprocessor_config.json").write_text(json.dumps(images))
    with pytest.raises(RequestError, match=message) as refusal:
        tower_of(resolve(name))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "train"},
        {"pass": "train", "checkpoint": True, "lora": "r=2"},
        {"pass": "train", "tiled": True, "loss_rows": "all"},
        {"pass": "decode"},
        {"attention": "d_attn", "pass": "train", "fold": True},
        {"attention": "d_attn", "pass": "train", "chunk": 16},
        {"attention": "d_attn_cascade", "pass": "train"},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    name = small_model("granite", tmp_path, num_hidden_layers=8, hidden_size=64)
    cell = cell_of(name, num_visual=100, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert_measured(cell, 0.02)
