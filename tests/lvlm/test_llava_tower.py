"""LLaVA's tower: transformers' own features and parameters, and towers that are refused."""

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.lvlm.test_oracles import relative
from tests.small import SHARED, SIGLIP
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
TEXT = {**SHARED, "model_type": "llama"}


def write(folder, **fields):
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", **fields}))
    return str(folder)


def cell_of(name, images=2, **fields):
    each = tower_of(resolve(name)).tokens_each
    return make_cell(
        model=name,
        scope="lvlm",
        num_visual=images * each,
        num_text=5,
        kernel="eager",
        dtype="float32",
        **fields,
    )


@pytest.mark.parametrize("tower", [CLIP, SIGLIP])
@pytest.mark.parametrize("layer", [-2, -1, 1])
@pytest.mark.parametrize("strategy", ["default", "full"])
def test_features_are_transformers_own(tower, layer, strategy, tmp_path):
    name = write(
        tmp_path,
        text_config=TEXT,
        vision_config=tower,
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
    )
    workload = build(cell_of(name))
    ours, adapter = workload.modules["tower"], workload.modules["adapter"]
    whole = AutoModelForImageTextToText.from_config(resolve(name).whole).eval().model
    whole.vision_tower.load_state_dict(
        {
            k.removeprefix("tower."): v
            for k, v in ours.state_dict().items()
            if k.startswith("tower.")
        },
        strict=False,
    )
    whole.multi_modal_projector.load_state_dict(adapter.state_dict())
    pixels = torch.randn(2, 3, 56, 56)
    found = whole.get_image_features(
        pixels, vision_feature_layer=layer, vision_feature_select_strategy=strategy
    )
    with torch.no_grad():
        features = adapter(ours(pixels))
    assert relative(features, torch.stack(list(found.pooler_output))) < 1e-5
    assert features.shape[1] == tower_of(resolve(name)).tokens_each


@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize("layer", [-2, -1])
def test_costs_are_the_counts(pass_, layer, tmp_path):
    name = write(tmp_path, text_config=TEXT, vision_config=CLIP, vision_feature_layer=layer)
    cell = cell_of(name, **{"pass": pass_})
    found, decoder = trace(cell), trace(cell.replace(scope="decoder"))
    tower = tower_of(resolve(name))
    grids = tower.grids(cell.num_visual)
    outside = tower.tower_flops(grids) + tower.adapter_flops(grids)
    if pass_ == "train":
        outside = 3 * outside - tower.patch_flops(grids)
    assert found.model_flops - decoder.model_flops == outside
    assert found.flops == found.model_flops
    flags = predict(cell, "h100-80gb").flags
    assert any("feed no token" in flag for flag in flags) == (layer == -2)


def test_what_is_not_trained_feeds_no_token(tmp_path):
    name = write(tmp_path, text_config=TEXT, vision_config=CLIP)
    workload = build(cell_of(name, **{"pass": "train"}))
    workload.step()
    for parameter in workload.module.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad


def test_parameters_of_llava_13b(tmp_path):
    """13B with CLIP L/14 at 336 pixels: 13,351,494,656 in all, as its checkpoint has."""
    text = {
        "model_type": "llama",
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_attention_heads": 40,
        "num_hidden_layers": 40,
        "num_key_value_heads": 40,
        "vocab_size": 32064,
        "rms_norm_eps": 1e-5,
    }
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
    }
    name = write(tmp_path, text_config=text, vision_config=vision)
    cell = make_cell(model=name, scope="lvlm", num_visual=576, logits="text")
    assert trace(cell).params == 13_351_494_656
    papers = trace(cell.replace(num_visual=729, tower="siglip"))
    assert papers.params_by_component["tower"] == 428_225_600


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vision_config": {"model_type": "vit"}}, "vision tower 'vit' under model_type"),
        ({}, "no vision_config, the section in which model_type 'llava'"),
        ({"vision_config": CLIP, "vision_feature_layer": 9}, "vision_feature_layer 9"),
        ({"vision_config": CLIP, "vision_feature_layer": [-1, -2]}, "vision_feature_layer"),
        ({"model_type": "mistral3", "vision_config": {"model_type": "vit"}}, "'mistral3'"),
        (
            {"model_type": "aya_vision", "vision_config": {"model_type": "clip_vision_model"}},
            "'aya_vision'",
        ),
    ],
)
def test_another_tower_is_refused_and_the_paper_s_can_be_asked_for(fields, message, tmp_path):
    name = write(tmp_path, text_config=TEXT, **fields)
    cell = make_cell(model=name, scope="lvlm", num_visual=729, kernel="eager")
    with pytest.raises(RequestError, match=message):
        build(cell, "meta")
    asked = cell.replace(tower="siglip")
    record = predict(asked, "h100-80gb")
    assert any(flag.startswith("tower: the paper's SigLIP") for flag in record.flags)
    assert asked.key != cell.key


def test_towers_that_cannot_be_asked_for(tmp_path):
    model = resolve(write(tmp_path, text_config=TEXT, vision_config=CLIP))
    with pytest.raises(RequestError, match=r"tower 'clip' is unknown; .*siglip"):
        tower_of(model, "clip")
    with pytest.raises(RequestError, match="tower 'gemma3': belongs to other models"):
        tower_of(model, "gemma3")
    with pytest.raises(RequestError, match="tower siglip: only scope 'lvlm'"):
        make_cell(num_visual=8, tower="siglip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 5}, "its config cannot be loaded: .* not a multiple"),
        ({"hidden_act": "origami"}, "hidden_act 'origami': an activation of transformers"),
        ({"num_hidden_layers": 0}, "vision_config.num_hidden_layers 0: a whole number"),
        ({"image_size": [56, 57]}, "model .*: .*"),
        ({"hidden_size": "48"}, "vision_config.hidden_size '48': a whole number"),
        ({"num_hidden_layers": 10**9}, "a whole number from 1 to 256"),
    ],
)
def test_a_tower_that_cannot_be_is_one_line(change, message, tmp_path):
    name = write(tmp_path, text_config=TEXT, vision_config={**CLIP, **change})
    with pytest.raises(RequestError, match=message) as refusal:
        build(cell_of(name))
    assert "\n" not in str(refusal.value)
