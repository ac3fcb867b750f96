"""Gemma 3n at scope lvlm: transformers' own parameters, features and words; prediction, pixels."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from PIL import Image
from timm.models._efficientnet_builder import decode_arch_def
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

from tests.lvlm.generation import GREEDY, extend, write_random
from tests.lvlm.published import OF_TIMM
from tests.lvlm.test_oracles import relative
from tests.small import small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.allocator import CARD
from workbench.probe.counting.operators import KNOWN
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

STAGES = [
    ["er_r1_k3_s2_e2_c8"],
    ["uir_r1_a3_k5_s2_e2_c12", "uir_r1_a5_k0_s1_e2_c12"],
    ["uir_r1_a5_k5_s2_e2_c16", "mqa_r1_k3_h2_v2_s1_d8_c16", "uir_r1_a0_k0_s1_e2_c16"],
    ["uir_r1_a5_k5_s2_e2_c24", "mqa_r1_k3_h2_s1_d8_c24", "uir_r1_a0_k0_s1_e2_c24"],
]
"""timm's words for a layer of each kind that MobileNet-v5 has."""
EDGE = 64
FEW = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "activation_sparsity_pattern": [0.9] + [0.0] * 3,
}


def small_whole(folder, vision=(), around=(), **fields):
    """A small Gemma 3n, its tower and its audio tower beside it; 4 tokens an image."""
    text = Path(small_model("gemma3n", folder, **FEW)) / "config.json"
    whole = {
        "model_type": "gemma3n",
        "text_config": json.loads(text.read_text()) | fields,
        "vision_config": {
            "model_type": "gemma3n_vision",
            "hidden_size": 2048,
            "vocab_size": 4,
            "vocab_offset": 90,
            "model_args": {"block_args": decode_arch_def(STAGES), "msfa_output_resolution": 2},
            **dict(vision),
        },
        "audio_config": {
            "model_type": "gemma3n_audio",
            "hidden_size": 16,
            "vocab_size": 3,
            "vocab_offset": 94,
            "conf_num_hidden_layers": 1,
            "conf_num_attention_heads": 2,
            "sscp_conv_channel_size": [4, 2],
        },
        "vision_soft_tokens_per_image": 4,
        "image_token_id": 91,
        "audio_token_id": 95,
        **dict(around),
    }
    text.write_text(json.dumps(whole))
    prepared = {"size": {"height": EDGE, "width": EDGE}}
    (text.parent / "preprocessor_config.json").write_text(json.dumps(prepared))
    return str(text.parent)


def checkpoint(name):
    """Random weights in the folder, and transformers' model."""
    config = AutoConfig.from_pretrained(name)
    written = deepcopy(config.vision_config.model_args)

    def make():
        model = AutoModelForImageTextToText.from_config(config)
        model.config.vision_config.model_args = written  # timm took away from its lists.
        return model

    return write_random(name, make, std=0.1, seed=7)


def cell_of(name, **fields):
    own = {"scope": "lvlm", "kernel": "eager", "num_visual": 8, "num_text": 6, "dtype": "float32"}
    return make_cell(**{"model": name, **own, **fields})


def own_parameters(whole):
    """Those of transformers' model without what hears."""
    audio = (whole.model.audio_tower, whole.model.embed_audio)
    left_out = {id(p) for module in audio for p in module.parameters()}
    return sum(p.numel() for p in whole.parameters() if id(p) not in left_out)


@pytest.mark.parametrize("name", sorted(n for n in MODELS if n.startswith("gemma-3n")))
def test_parameters_of_the_catalogue_are_transformers_own(name):
    model = resolve(name)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    traced = trace(cell_of(name, kernel="sdpa", dtype="bfloat16", num_visual=512))
    assert traced.params == own_parameters(whole)
    tower = sum(p.numel() for p in whole.model.vision_tower.parameters())
    assert traced.params_by_component["tower"] == tower
    assert traced.flops == traced.model_flops
    left_out = sum(p.numel() for p in whole.parameters()) - traced.params
    said = f"the audio tower beside it is left out with its projector, their {left_out:,} param"
    assert said in tower_of(model).flags[-1]


def test_a_published_folder_is_served(tmp_path):
    for file, fields in OF_TIMM["google/gemma-3n-E4B-it"].items():
        (tmp_path / file).write_text(json.dumps(fields))
    folder, catalogue = str(tmp_path), "gemma-3n-e4b"
    cells = [cell_of(name, dtype="bfloat16", num_visual=256) for name in (folder, catalogue)]
    ours, theirs = (trace(cell) for cell in cells)
    assert ours.params == theirs.params
    assert ours.flops == theirs.flops
    sizes = [tower_of(resolve(name)).pixels(1, ()) for name in (folder, catalogue)]
    assert sizes == [(0, 3, 768, 768)] * 2
    assert tokens(folder, resolution="640x480")["num_visual"] == 256


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_greedy_generation_is_transformers_own(kernel, tmp_path):
    """From the pixels of two images, with weights of a checkpoint of the whole."""
    name = small_whole(tmp_path)
    model = checkpoint(name)
    cell = cell_of(name, weights=name, kernel=kernel, dtype="float64", num_text=3)
    workload = build(cell)
    pixels, ids = workload.inputs[0], torch.tensor([[1, 5, 9]])
    asked = {"input_ids": torch.cat([torch.full((1, 8), 91), ids], 1), "pixel_values": pixels}
    with torch.no_grad():
        assert relative(workload.module(pixels, ids), model(**asked).logits) <= 1e-5
        wanted = model.generate(**asked, max_new_tokens=3, **GREEDY)
    ids = extend(ids, 3, lambda num: build(cell.replace(num_text=num)), pixels)
    assert int(ids.max()) < 90, "ids beyond are embedded beside the projector"
    assert torch.equal(ids[0], wanted[0, 8:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


@pytest.mark.parametrize(
    "fields",
    [
        {"batch": 2, "num_text": 600, "cache": True, "reduce": "pool"},
        {"pass": "train"},
        {"pass": "train", "kernel": "sdpa", "num_text": 400, "checkpoint": True},
        {"pass": "train", "num_text": 300, "lora": "r=2,alpha=4,targets=all-linear"},
    ],
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


def test_what_a_convolution_copies_is_bounded_and_flagged(tmp_path):
    """On the CPU oneDNN brings weights into an order of its own: here the last one's."""
    measured, predicted = both(cell_of(small_whole(tmp_path)))
    peaks = [record.metrics["peak_bytes"] for record in (predicted, measured)]
    last = 4 * (2048 * 80 + 2 * 4 * 4 * (2048 + 80))
    assert peaks[0] <= peaks[1] <= peaks[0] + last
    assert any("copies of a convolution's weights" in flag for flag in predicted.flags)


def both(cell):
    """Measured and predicted on the CPU; what is counted is the same."""
    measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    predicted = predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    for metric in ("flops", "flops_causal", "model_flops", "params", "kv_cache_bytes"):
        assert measured.metrics.get(metric) == predicted.metrics.get(metric)
    return measured, predicted


@pytest.mark.parametrize("frozen", [None, "tower", "adapter", "tower,adapter", "decoder"])
@pytest.mark.parametrize("edge", [EDGE, 72])
def test_closed_form_is_the_count(edge, frozen, tmp_path):
    """Also where strides leave an odd number of pixels a side."""
    name = small_whole(tmp_path)
    prepared = {"size": {"height": edge, "width": edge}}
    (Path(name) / "preprocessor_config.json").write_text(json.dumps(prepared))
    found = trace(cell_of(name, frozen=frozen, **{"pass": "train"}))
    assert found.flops == found.model_flops


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_its_operators_were_gone_through(kernel, tmp_path):
    cell = cell_of(small_whole(tmp_path), kernel=kernel, dtype="bfloat16", **{"pass": "train"})
    traced = trace(cell, CARD, compose=False)
    assert {op.name for op in traced.operators} <= KNOWN


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (31, 300), (768, 768)])
def test_pixels_are_its_processors(size):
    """transformers resizes them by torchvision: within a step of 8 bits of Pillow's."""
    picture = Image.effect_noise(size, 80).convert("RGB")
    theirs = SiglipImageProcessor(
        size={"height": 768, "width": 768}, do_normalize=False, resample=2
    )
    wanted = theirs(picture, return_tensors="pt")["pixel_values"]
    tower = tower_of(resolve("gemma-3n-e2b"))
    pixels = tower.preprocess([picture], 0)
    assert pixels.shape == wanted.shape == tower.pixels(1, tower.of_image(*size))
    assert float((pixels - wanted).abs().max()) <= 1.01 / 255


@pytest.mark.parametrize(
    ("vision", "around", "message"),
    [
        ({"hidden_size": 1024}, {}, "vision_config.hidden_size 1024: its tower has 2048 features"),
        ({}, {"vision_soft_tokens_per_image": 9}, "per_image 9: its tower makes 2 × 2"),
        ({}, {"vision_soft_tokens_per_image": 5}, "per_image 5: its tower makes a square of"),
        (
            {"architecture": "resnet18", "model_args": None},
            {},
            "architecture 'resnet18': the tower of gemma-3n is timm's mobilenetv5_300m_enc",
        ),
        ({"architecture": "no_such"}, {}, "cannot build its vision tower: .*'no_such'"),
    ],
)
def test_a_tower_that_cannot_be_is_one_line(vision, around, message, tmp_path):
    name = small_whole(tmp_path, vision, around)
    with pytest.raises(RequestError, match=message) as refusal:
        build(cell_of(name, num_visual=around.get("vision_soft_tokens_per_image", 4)), "meta")
    assert "\n" not in str(refusal.value)
