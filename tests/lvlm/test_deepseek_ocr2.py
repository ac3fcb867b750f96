"""DeepSeek-OCR 2: transformers' own results, its tokens, costs, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText
from transformers.models.deepseek_ocr2.image_processing_pil_deepseek_ocr2 import (
    DeepseekOcr2ImageProcessorPil,
)
from transformers.models.deepseek_ocr2.processing_deepseek_ocr2 import DeepseekOcr2Processor

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.test_oracles import relative
from tests.small import small_lvlm, small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.pictures import fields_of
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

FAMILY = "deepseek_ocr2"
WHOLE, TILE = 257, 144
"""Tokens of an image with its separator, and of a tile."""


def cell_of(name, **fields):
    own = {"scope": "lvlm", "kernel": "eager", "dtype": "float32", "num_visual": WHOLE}
    return make_cell(**{"model": name, "num_text": 5, **own, **fields})


@pytest.fixture
def checkpoint(tmp_path):
    """A whole small model and transformers' own of it."""
    name = small_lvlm(FAMILY, tmp_path)
    return name, write_weights(name, dtype=torch.float32, std=0.2)


def paint(folder, sizes):
    """Files of images of these sizes."""
    names = []
    for number, (width, height) in enumerate(sizes):
        path = folder / f"{number}.png"
        small = torch.randint(256, (8, 8, 3), dtype=torch.uint8).numpy()
        Image.fromarray(small).resize((width, height)).save(path)
        names.append(str(path))
    return Pictures(images=tuple(names))


def test_greedy_generation_is_transformers_own(checkpoint, tmp_path):
    """From files: an image of two tiles and one of none, and the tokens that follow."""
    name, model = checkpoint
    pictures = paint(tmp_path, [(800, 400), (90, 60)])
    fields = {"weights": name, **fields_of(name, pictures, "V,T")}
    workload = build(cell_of(name, **fields), pictures=pictures)
    assert workload.context.cell.num_visual == 2 * WHOLE + 2 * TILE
    pixels, ids = workload.inputs
    ids.clamp_(1, 90)
    whole, local = pixels.split([2 * 3 * 1024**2, 2 * 3 * 768**2], 1)
    inputs = torch.cat([torch.full((1, 2 * WHOLE + 2 * TILE), 96), ids], 1)
    extra = {
        "pixel_values": whole.view(2, 3, 1024, 1024),
        "pixel_values_local": local.view(2, 3, 768, 768),
        "num_local_patches": [2, 0],
    }
    with torch.no_grad():
        logits = model(input_ids=inputs, **extra).logits
        assert relative(workload.module(pixels, ids), logits) <= 1e-4
        wanted = model.generate(input_ids=inputs, **extra, max_new_tokens=2, **GREEDY)
    cell = cell_of(name, **fields)
    ids = extend(ids, 2, lambda num: build(cell.replace(num_text=num), pictures=pictures), pixels)
    assert torch.equal(ids[0, 5:], wanted[0, -2:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


@pytest.mark.parametrize(
    "size", [(19, 7), (768, 768), (769, 768), (1600, 800), (700, 2100), (3000, 300)]
)
def test_tokens_are_its_processor_s(size):
    made = DeepseekOcr2ImageProcessorPil()(Image.new("RGB", size), return_tensors="pt")
    words = SimpleNamespace(
        image_processor=DeepseekOcr2ImageProcessorPil(),
        patch_size=16,
        downsample_ratio=4,
        image_token="I",
    )
    text = DeepseekOcr2Processor.replace_image_token(words, made, 0)
    shown = tokens("deepseek-ocr-2", resolution=f"{size[0]}x{size[1]}")
    assert shown["num_visual"] == len(text)
    tower = tower_of(resolve("deepseek-ocr-2"))
    grids = tower.of_image(*size)
    assert sum(map(tower.tokens, grids)) == len(text)
    pixels = tower.preprocess([Image.new("RGB", size)], 0)
    assert pixels.shape == tower.pixels(1, grids)
    assert torch.equal(pixels[0, : 3 * 1024**2], made["pixel_values"].flatten())


def test_parameters_are_transformers_own():
    model = resolve("deepseek-ocr-2")
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    found = trace(cell_of("deepseek-ocr-2", dtype="bfloat16"))
    assert found.params == sum(p.numel() for p in whole.parameters()) == 3_389_119_360
    text = [*whole.get_decoder().parameters(), whole.lm_head.weight]
    assert found.params_by_component["decoder"] == sum(p.numel() for p in text)
    assert trace(cell_of("deepseek-ocr-2", scope="decoder")).params == sum(p.numel() for p in text)


@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize("frozen", [None, "tower", "tower,adapter"])
def test_closed_forms_are_the_counts_with_tiles(pass_, frozen, tmp_path):
    name = small_lvlm(FAMILY, tmp_path)
    pictures = Pictures(resolution="1600x800")
    fields = {"pass": pass_, **fields_of(name, pictures, "V,T")}
    if pass_ == "train":
        fields["frozen"] = frozen
    found = trace(cell_of(name, **fields), pictures=pictures)
    assert found.flops == found.model_flops


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_full", "streaming"])
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_the_decoder_s_closed_form_is_the_count(system, pass_, tmp_path):
    cell = cell_of(small_model(FAMILY, tmp_path), scope="decoder", attention=system, num_visual=64)
    found = trace(cell.replace(**{"pass_": pass_}))
    assert found.flops == found.model_flops
    # Of the second of two layers a token meets two of eight experts.
    assert found.params - found.active_params == (8 - 2) * 3 * 32 * 16


def test_d_attn_full_equals_s_attn(tmp_path):
    name = small_model(FAMILY, tmp_path)
    fields = {"scope": "decoder", "pass": "train", "layout": "T,V,T", "num_visual": 32}
    one, other = (build(cell_of(name, attention=a, **fields)) for a in ("s_attn", "d_attn_full"))
    other.module.load_state_dict(one.module.state_dict())
    for a, b in zip(one.inputs, other.inputs, strict=True):
        b.data.copy_(a.data)
    for workload in (one, other):
        workload.run_backward(workload.run_forward())
    assert relative(other.inputs[0].grad, one.inputs[0].grad) <= 1e-4


def test_predicted_is_measured(tmp_path):
    cell = cell_of(small_lvlm(FAMILY, tmp_path), attention="d_attn", checkpoint=True)
    predicted = predict(cell, "cpu")
    with torch.backends.mkldnn.flags(enabled=False):  # Its scratch, of convolutions.
        measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    assert measured.status == predicted.status == Status.OK
    for metric in ("flops", "params", "active_params"):
        assert measured.metrics[metric] == predicted.metrics[metric]
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.05)
    assert any(flag.startswith("tower: SAM's attention adds a bias") for flag in predicted.flags)


def test_sdpa_holds_no_scores_in_a_prediction(tmp_path):
    name = small_lvlm(FAMILY, tmp_path)
    eager, fused = (trace(cell_of(name, kernel=kernel)) for kernel in ("eager", "sdpa"))
    assert eager.timeline.peak()[0] - fused.timeline.peak()[0] > 4 * 4096**2
    assert fused.flops == eager.flops == fused.model_flops


def test_queries_that_no_image_asks_are_not_trained(tmp_path):
    cell = cell_of(small_lvlm(FAMILY, tmp_path), **{"pass": "train"})
    tower = build(cell, "meta").module.tower.tower
    assert not tower.query_768_resolution.weight.requires_grad
    assert tower.query_1024_resolution.weight.requires_grad
    with pytest.raises(Unsupported, match="reads an image into queries of its own"):
        build(cell.replace(attention="himix", logits="text"), "meta")


def written(folder, text=(), sam=(), encoder=(), files=()):
    """A small folder with other fields."""
    path = Path(small_lvlm(FAMILY, folder))
    config = json.loads((path / "config.json").read_text())
    config["text_config"] |= dict(text)
    config["vision_config"]["sam_config"] |= dict(sam)
    config["vision_config"]["encoder_config"] |= dict(encoder)
    (path / "config.json").write_text(json.dumps(config))
    for file, fields in dict(files).items():
        (path / f"{file}.json").write_text(json.dumps(fields))
    return str(path)


IMAGES = "preprocessor_config"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": {"mlp_layer_types": None}}, "mlp_layer_types None: dense or sparse for each"),
        ({"text": {"mlp_layer_types": ["dense", "x"]}}, "mlp_layer_types 'x': dense or sparse"),
        ({"text": {"topk_method": "noaux_tc"}}, "topk_method 'noaux_tc': greedy or group_"),
        ({"text": {"topk_method": "group_limited_greedy"}}, "n_group is missing"),
        ({"text": {"num_experts_per_tok": 9}}, "num_experts_per_tok 9: at most"),
        ({"sam": {"image_size": 512}}, "image_size 512, patch_size 16: 1024 and 16"),
        ({"sam": {"downsample_channels": [8, 16]}}, "two, the second the encoder_config's"),
        ({"sam": {"num_attention_heads": 3}}, "sam_config.hidden_size 16: no multiple"),
        ({"files": {IMAGES: {"tile_size": 640}}}, "tile_size 640: 768, for which its tower has"),
        ({"files": {IMAGES: {"size": 640}}}, "image_size 640: 1024, for which its tower"),
        ({"files": {IMAGES: {"crop_to_patches": False}}}, "crop_to_patches False: true"),
        ({"files": {IMAGES: {"min_patches": 7}}}, "min_patches 7, max_patches 6: the first"),
        ({"files": {"processor_config": {"patch_size": 14}}}, "patch_size 14: 16, for which"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, message, tmp_path):
    with pytest.raises(RequestError, match=message) as refusal:
        tower_of(resolve(written(tmp_path, **changes)))
    assert "\n" not in str(refusal.value)
