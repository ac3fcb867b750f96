"""PerceptionLM at scope lvlm: transformers' own parameters, features, words, tiles and pixels."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText
from transformers.models.perception_lm.image_processing_perception_lm import (
    PerceptionLMImageProcessor,
)
from transformers.models.perception_lm.processing_perception_lm import PerceptionLMProcessor

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.test_oracles import relative
from tests.packages.test_gemma3n_tower import both
from tests.small import small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.allocator import CARD
from workbench.probe.counting.operators import KNOWN
from workbench.probe.counting.trace import trace
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

ARGS = {
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "img_size": [56, 56],
    "ref_feat_shape": [4, 4],
}
OWN = {"global_pool": "", "use_post_transformer_norm": False, "init_values": 0.1}
LARGE = {"embed_dim": 1024, "depth": 23, "img_size": [448, 448], "ref_feat_shape": [32, 32]}


def small_whole(folder, vision=(), prepared=(), **around):
    """A small PerceptionLM; 4 tokens a tile of 56 pixels a side."""
    text = Path(small_model("llama", folder)) / "config.json"
    whole = {
        "model_type": "perception_lm",
        "text_config": json.loads(text.read_text()),
        "vision_config": {
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_core_large_patch14_336",
            "model_args": ARGS | OWN,
            **dict(vision),
        },
        "projector_pooling_ratio": 2,
        "image_token_id": 96,
        "video_token_id": 95,
        **around,
    }
    text.write_text(json.dumps(whole))
    files = {"tile_size": 56, "max_num_tiles": 6, **dict(prepared)}
    (text.parent / "preprocessor_config.json").write_text(json.dumps(files))
    return str(text.parent)


def cell_of(name, **fields):
    own = {"scope": "lvlm", "kernel": "eager", "num_visual": 8, "num_text": 6, "dtype": "float32"}
    return make_cell(**{"model": name, **own, **fields})


@pytest.mark.parametrize("token", [True, False])
def test_parameters_are_transformers_own(token, tmp_path):
    """With the sizes of its large encoder, and without a class token."""
    vision = {"model_args": LARGE | OWN | {"class_token": token}}
    name = small_whole(tmp_path, vision, {"tile_size": 448}, vision_use_cls_token=token)
    model = resolve(name)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    traced = trace(cell_of(name, kernel="sdpa", dtype="bfloat16", num_visual=512))
    assert traced.params == sum(p.numel() for p in whole.parameters())
    assert traced.flops == traced.model_flops


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_greedy_generation_is_transformers_own(kernel, tmp_path):
    """From the pixels of two tiles, with weights of a checkpoint of the whole."""
    name = small_whole(tmp_path)
    model = write_weights(name, std=0.2)
    cell = cell_of(name, weights=name, kernel=kernel, dtype="float64", num_text=3)
    workload = build(cell)
    pixels, ids = workload.inputs[0], torch.tensor([[1, 5, 9]])
    asked = {
        "input_ids": torch.cat([torch.full((1, 8), 96), ids], 1),
        "pixel_values": pixels[None],
    }
    with torch.no_grad():
        assert relative(workload.module(pixels, ids), model(**asked).logits) <= 1e-5
        wanted = model.generate(**asked, max_new_tokens=3, **GREEDY)
    ids = extend(ids, 3, lambda num: build(cell.replace(num_text=num)), pixels)
    assert torch.equal(ids[0], wanted[0, 8:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


@pytest.mark.parametrize("fields", [{"batch": 2, "kernel": "sdpa"}, {"pass": "train"}], ids=str)
def test_predicted_is_measured(fields, tmp_path):
    cell = cell_of(small_whole(tmp_path), **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    measured, predicted = both(cell)
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize("frozen", [None, "tower", "adapter", "tower,adapter", "decoder"])
def test_closed_form_is_the_count_of_operators_that_were_gone_through(frozen, tmp_path):
    cell = cell_of(small_whole(tmp_path), frozen=frozen, **{"pass": "train"})
    traced = trace(cell, CARD, compose=False)
    assert {op.name for op in traced.operators} <= KNOWN
    assert traced.flops == traced.model_flops


def test_tokens_are_its_processors(tmp_path):
    """Over a grid of sizes, also of those that no canvas holds."""
    for most in (1, 5, 36):
        settings = {"tile_size": 448, "max_num_tiles": most}
        vision = {"model_args": LARGE | OWN}
        name = small_whole(tmp_path / str(most), vision, settings)
        theirs = SimpleNamespace(
            image_processor=PerceptionLMImageProcessor(**settings),
            patch_size=14,
            pooling_ratio=2,
            _merge_kwargs=lambda **_: {"images_kwargs": {}},
        )
        sizes = [
            (h, w) for h in (1, 90, 448, 449, 720, 1100, 3000) for w in (1, 448, 640, 1280, 5000)
        ]
        counted = PerceptionLMProcessor._get_num_multimodal_tokens(theirs, image_sizes=sizes)
        for (height, width), wanted in zip(sizes, counted["num_image_tokens"], strict=True):
            size = f"{width}x{height}"
            assert tokens(name, resolution=size)["num_visual"] == wanted, (most, size)
    assert tokens(name, resolution="640x480", frames=3)["num_visual"] == 3 * 256


@pytest.mark.parametrize("kind", ["thumb+tile", "vanilla"])
def test_pixels_are_its_processors(kind, tmp_path):
    """To the bit; they are resized by torchvision there."""
    settings = {"tile_size": 448, "vision_input_type": kind, "max_num_tiles": 12}
    name = small_whole(tmp_path, {"model_args": LARGE | OWN}, settings)
    theirs, tower = PerceptionLMImageProcessor(**settings), tower_of(resolve(name))
    for size in [(640, 480), (300, 900), (448, 448), (31, 20)]:
        picture = Image.merge("RGB", [Image.effect_noise(size, 70) for _ in range(3)])
        wanted = theirs(picture, return_tensors="pt")["pixel_values"].flatten(0, 1)
        pixels = tower.preprocess([picture], 0)
        assert pixels.shape == tower.pixels(1, tower.of_image(*size))
        assert torch.equal(pixels, wanted), size
    assert tower.preprocess([picture] * 2, 2).shape == (2, 3, 448, 448)


@pytest.mark.parametrize(
    ("vision", "prepared", "around", "message"),
    [
        ({"model_args": OWN}, {}, {}, "vision_config.model_args has no embed_dim"),
        (
            {},
            {"tile_size": 84},
            {},
            "image_size 84, but config.json says 56: the tower cannot take",
        ),
        (
            {"architecture": "vit_pe_core_base_patch16_224"},
            {},
            {},
            "patches of 14: its tower takes",
        ),
        ({}, {}, {"vision_use_cls_token": False}, "vision_use_cls_token False: its tower has 1 r"),
        ({}, {}, {"projector_pooling_ratio": 3}, "ratio 3: 4 patches a side are no multiple"),
        ({}, {"max_num_tiles": 65}, {}, "max_num_tiles 65: at most 64"),
        (
            {"architecture": "eva02_tiny_patch14_336", "model_args": ARGS},
            {},
            {},
            "the tower of perception-lm is a Perception Encoder, one of timm's vit_pe_",
        ),
    ],
)
def test_a_tower_that_cannot_be_is_one_line(vision, prepared, around, message, tmp_path):
    name = small_whole(tmp_path, vision, prepared, **around)
    with pytest.raises(RequestError, match=message) as refusal:
        build(cell_of(name, num_visual=36), "meta")
    assert "\n" not in str(refusal.value)
