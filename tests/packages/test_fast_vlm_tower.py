"""FastVLM at scope lvlm: transformers' own parameters, features and words; prediction, pixels."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText
from transformers.models.clip.image_processing_clip import CLIPImageProcessor

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.test_oracles import relative
from tests.packages.test_gemma3n_tower import both
from tests.small import small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.allocator import CARD
from workbench.probe.counting.operators import KNOWN
from workbench.probe.counting.trace import trace
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

ARGS = {"inference_mode": True, "layers": [1, 1, 1, 1, 1], "embed_dims": [8, 8, 16, 32, 64]}


def small_whole(folder, vision=(), edge=128):
    """A small FastVLM; 4 tokens an image of 128 pixels a side."""
    text = Path(small_model("qwen2", folder)) / "config.json"
    whole = {
        "model_type": "fast_vlm",
        "text_config": json.loads(text.read_text()),
        "vision_config": {
            "model_type": "timm_wrapper",
            "architecture": "fastvit_mci3",
            "hidden_size": 128,
            "model_args": ARGS,
            **dict(vision),
        },
        "image_token_index": 96,
    }
    text.write_text(json.dumps(whole))
    prepared = {"crop_size": {"height": edge, "width": edge}}
    (text.parent / "preprocessor_config.json").write_text(json.dumps(prepared))
    return str(text.parent)


def cell_of(name, **fields):
    own = {"scope": "lvlm", "kernel": "eager", "num_visual": 8, "num_text": 6, "dtype": "float32"}
    return make_cell(**{"model": name, **own, **fields})


@pytest.mark.parametrize("name", sorted(n for n in MODELS if n.startswith("fastvlm")))
def test_parameters_of_the_catalogue_are_transformers_own(name):
    model = resolve(name)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    traced = trace(cell_of(name, kernel="sdpa", dtype="bfloat16", num_visual=512))
    assert traced.params == sum(p.numel() for p in whole.parameters())
    tower = sum(p.numel() for p in whole.model.vision_tower.parameters())
    assert traced.params_by_component["tower"] == tower
    assert traced.flops == traced.model_flops
    assert tokens(name, resolution="640x480")["num_visual"] == 256


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_greedy_generation_is_transformers_own(kernel, tmp_path):
    """From the pixels of two images, with weights and statistics of a checkpoint of the whole."""
    name = small_whole(tmp_path)
    model = write_weights(name, std=0.1, buffers=("running_mean", "running_var"), seed=4)
    cell = cell_of(name, weights=name, kernel=kernel, dtype="float64", num_text=3)
    workload = build(cell)
    pixels, ids = workload.inputs[0], torch.tensor([[1, 5, 9]])
    asked = {"input_ids": torch.cat([torch.full((1, 8), 96), ids], 1), "pixel_values": pixels}
    with torch.no_grad():
        assert relative(workload.module(pixels, ids), model(**asked).logits) <= 1e-5
        wanted = model.generate(**asked, max_new_tokens=3, **GREEDY)
    ids = extend(ids, 3, lambda num: build(cell.replace(num_text=num)), pixels)
    assert torch.equal(ids[0], wanted[0, 8:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


@pytest.mark.parametrize(
    "fields",
    [{"batch": 2, "num_text": 600, "cache": True}, {"pass": "train", "num_text": 300}],
    ids=str,
)
def test_predicted_is_measured(fields, tmp_path):
    """Where no convolution's copies are at the peak, or few."""
    cell = cell_of(small_whole(tmp_path), **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    measured, predicted = both(cell)
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"frozen": "tower"},
        {"frozen": "adapter"},
        {"frozen": "tower,adapter"},
        {"frozen": "decoder"},
        {"kernel": "sdpa", "batch": 2},
    ],
    ids=str,
)
def test_closed_form_is_the_count_of_operators_that_were_gone_through(fields, tmp_path):
    cell = cell_of(small_whole(tmp_path), **{"pass": "train", **fields})
    traced = trace(cell, CARD, compose=False)
    assert {op.name for op in traced.operators} <= KNOWN
    if cell.kernel == "eager":
        assert traced.flops == traced.model_flops
    forward = trace(cell.replace(pass_="forward", frozen=None))
    assert forward.flops == forward.model_flops


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (1024, 1024)])
def test_pixels_are_its_processors(size):
    """transformers resizes them by torchvision: within two steps of 8 bits of Pillow's."""
    picture = Image.effect_noise(size, 80).convert("RGB")
    square, mean = (
        {"height": 1024, "width": 1024},
        {"image_mean": [0.0] * 3, "image_std": [1.0] * 3},
    )
    theirs = CLIPImageProcessor(size={"shortest_edge": 1024}, crop_size=square, **mean)
    wanted = theirs(picture, return_tensors="pt")["pixel_values"]
    tower = tower_of(resolve("fastvlm-7b"))
    pixels = tower.preprocess([picture], 0)
    assert pixels.shape == wanted.shape == tower.pixels(1, tower.of_image(*size))
    assert float((pixels - wanted).abs().max()) <= 2.01 / 255


@pytest.mark.parametrize(
    ("vision", "edge", "message"),
    [
        ({"hidden_size": 64}, 128, "vision_config.hidden_size 64: its tower has 128 features"),
        ({"model_args": None}, 128, "model_args inference_mode None: true"),
        ({}, 100, "image_size 100: a multiple of 64"),
        (
            {"architecture": "mobilenetv5_300m_enc", "model_args": {"inference_mode": True}},
            128,
            "cannot build its vision tower",
        ),
        (
            {"architecture": "fastvit_t8", "model_args": {"inference_mode": True}},
            128,
            "architecture 'fastvit_t8': the tower of fast-vlm is timm's fastvit_mci3 or",
        ),
    ],
)
def test_a_tower_that_cannot_be_is_one_line(vision, edge, message, tmp_path):
    name = small_whole(tmp_path, vision, edge)
    with pytest.raises(RequestError, match=message) as refusal:
        build(cell_of(name, num_visual=4), "meta")
    assert "\n" not in str(refusal.value)
