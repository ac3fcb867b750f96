"""Aria: transformers' own results, its tokens and pixels, costs, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText
from transformers.models.aria.image_processing_pil_aria import AriaImageProcessorPil
from transformers.models.aria.processing_aria import AriaProcessor

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.test_oracles import relative
from tests.small import small_lvlm, small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.pictures import fields_of, look
from workbench.lvlm.towers import Grid, tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

FAMILY = "aria"
EACH = 5
"""Tokens of an image of the small model."""


def cell_of(name, **fields):
    own = {"scope": "lvlm", "kernel": "eager", "dtype": "float32", "num_visual": EACH}
    return make_cell(**{"model": name, "num_text": 5, **own, **fields})


def written(folder, files=None, tower=(), text=(), **changes):
    """A small folder with other fields."""
    path = Path(small_lvlm(FAMILY, folder))
    config = json.loads((path / "config.json").read_text()) | changes
    config["vision_config"] |= dict(tower)
    config["text_config"] |= dict(text)
    (path / "config.json").write_text(json.dumps(config))
    for file, fields in (files or {}).items():
        (path / f"{file}.json").write_text(json.dumps(fields))
    return str(path)


def mask_of(tower, sizes):
    """transformers' pixel_mask of images of these sizes."""
    mask = torch.zeros(len(sizes), 980, 980, dtype=torch.bool)
    for each, size in zip(mask, sizes, strict=True):
        wide, high = tower.eye.resized(*size)
        each[:high, :wide] = True
    return mask


@pytest.mark.parametrize("layer", [-1, -2])
@pytest.mark.parametrize("sizes", [[(200, 90), (40, 130)], [(100, 100)]])
def test_greedy_generation_is_transformers_own(layer, sizes, tmp_path):
    """From files, with and without what is masked, of the last layer and of the one before."""
    name = written(tmp_path, vision_feature_layer=layer)
    model = write_weights(name, dtype=torch.float32, std=0.2)
    names = [str(tmp_path / f"{number}.png") for number, _ in enumerate(sizes)]
    for path, (width, height) in zip(names, sizes, strict=True):
        noise = torch.randint(256, (height, width, 3), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(path)
    pictures = Pictures(images=tuple(names))
    cell = cell_of(name, weights=name, **fields_of(name, pictures, "V,T"))
    workload = build(cell, pictures=pictures)
    assert cell.num_visual == EACH * len(sizes)
    pixels, ids = workload.inputs
    ids.clamp_(1, 90)
    inputs = torch.cat([torch.full((1, cell.num_visual), 96), ids], 1)
    extra = {"pixel_values": pixels, "pixel_mask": mask_of(tower_of(resolve(name)), sizes)}
    with torch.no_grad():
        logits = model(input_ids=inputs, **extra).logits
        assert relative(workload.module(pixels, ids), logits) <= 1e-4
        wanted = model.generate(input_ids=inputs, **extra, max_new_tokens=2, **GREEDY)
    ids = extend(ids, 2, lambda num: build(cell.replace(num_text=num), pictures=pictures), pixels)
    assert torch.equal(ids[0, 5:], wanted[0, -2:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


@pytest.mark.parametrize("size", [(19, 7), (980, 980), (1280, 720), (300, 900), (7, 3000)])
def test_tokens_and_pixels_are_its_processor_s(size):
    """That no image is split is AriaProcessor's own setting."""
    assert AriaProcessor.images_kwargs == {"max_image_size": 980, "split_image": False}
    made = AriaImageProcessorPil()(Image.new("RGB", size, (9, 40, 200)), return_tensors="pt")
    words = SimpleNamespace(size_conversion={490: 128, 980: 256}, image_token="I")
    text = AriaProcessor.replace_image_token(words, made, 0)
    shown = tokens("aria", resolution=f"{size[0]}x{size[1]}")
    assert shown["num_visual"] == len(text) == 256
    tower = tower_of(resolve("aria"))
    (grid,) = tower.of_image(*size)
    seen = made["pixel_mask"][0].unfold(0, 14, 14).unfold(1, 14, 14).any(-1).any(-1)
    assert grid[1:3] == (int(seen[:, 0].sum()), int(seen[0].sum()))
    pixels = tower.preprocess([Image.new("RGB", size, (9, 40, 200))], 0)
    assert pixels.shape == tower.pixels(1, (grid,))
    assert torch.equal(pixels, made["pixel_values"])


def test_parameters_are_transformers_own():
    model = resolve("aria")
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    found = trace(cell_of("aria", dtype="bfloat16", num_visual=256))
    assert found.params == sum(p.numel() for p in whole.parameters()) == 25_307_311_216
    text = sum(p.numel() for p in (*whole.get_decoder().parameters(), whole.lm_head.weight))
    assert found.params_by_component["decoder"] == text
    assert trace(cell_of("aria", scope="decoder")).params == text
    assert tower_of(model).grids(512) == (Grid(1, 70, 70),) * 2
    assert not model.flags


@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize("frozen", [None, "tower", "tower,adapter"])
def test_closed_forms_are_the_counts(pass_, frozen, tmp_path):
    name = small_lvlm(FAMILY, tmp_path)
    pictures = Pictures(resolution="1600x800", count=2)
    fields = {"pass": pass_, **fields_of(name, pictures, "V,T")}
    if pass_ == "train":
        fields["frozen"] = frozen
    cell = cell_of(name, **fields)
    found = trace(cell, pictures=pictures)
    assert found.flops == found.model_flops
    if pass_ == "train" and frozen is None:
        tower = tower_of(resolve(name))
        grids = look(tower, pictures).grids
        outside = 3 * (tower.tower_flops(grids) + tower.adapter_flops(grids))
        decoder = trace(cell.replace(scope="decoder"))
        assert found.model_flops - decoder.model_flops == outside - tower.patch_flops(grids)


def test_whatever_is_trained_has_a_gradient(tmp_path):
    name = written(tmp_path, vision_feature_layer=-2)
    workload = build(cell_of(name, num_visual=2 * EACH, **{"pass": "train"}))
    workload.step()
    # Of nine queries an image is read by five; of the tower a layer and its norm are held.
    for parameter in workload.module.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad
    assert any("the last 1 of its 3 layers" in flag for flag in tower_of(resolve(name)).flags)


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_full", "streaming", "himix"])
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_the_decoder_s_closed_form_is_the_count(system, pass_, tmp_path):
    fields = {"logits": "text"} if system == "himix" else {}
    name = small_model(FAMILY, tmp_path)
    cell = cell_of(name, scope="decoder", attention=system, num_visual=64, **fields)
    found = trace(cell.replace(**{"pass_": pass_}))
    assert found.flops == found.model_flops
    # Of each of two layers a token meets two of eight experts.
    assert found.params - found.active_params == 2 * (8 - 2) * 3 * 32 * 16


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
    cell = cell_of(
        small_lvlm(FAMILY, tmp_path), attention="d_attn", num_visual=2 * EACH, **{"pass": "train"}
    )
    predicted = predict(cell, "cpu")
    with torch.backends.mkldnn.flags(enabled=False):  # Its scratch, of so wide a patch.
        measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    assert measured.status == predicted.status == Status.OK
    for metric in ("flops", "params", "active_params"):
        assert measured.metrics[metric] == predicted.metrics[metric]
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.05)
    assert any(flag.startswith("experts: FLOPs are of the 2 of 8") for flag in predicted.flags)


def test_a_skewed_router_sends_all_tokens_to_the_same(tmp_path):
    cell = cell_of(small_model(FAMILY, tmp_path), scope="decoder", num_visual=256)
    even, skewed = trace(cell), trace(cell.replace(experts_skew=True))
    assert (even.flops, even.params) == (skewed.flops, skewed.params)
    assert even.bytes_moved - skewed.bytes_moved == 2 * 6 * 3 * 32 * 16 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": {"moe_topk": 9}}, "moe_topk 9: at most moe_num_experts 8"),
        ({"text": {"moe_topk": 0}}, "moe_topk 0: a whole number from 1"),
        ({"tower": {"patch_size": 70}, "projector_patch_to_query_dict": {"49": 5}}, "196 patches"),
        ({"projector_patch_to_query_dict": {"50": 5}}, "has no number of queries for the 49"),
        ({"projector_patch_to_query_dict": {"49": 0}}, "tokens 0: a whole number from 1"),
        ({"vision_feature_layer": [-1]}, "takes one of its 3 layers"),
        ({"files": {"preprocessor_config": {"min_image_size": 999}}}, "999: at most the 980"),
        ({"files": {"processor_config": {"size_conversion": {"980": 256}}}}, "puts 256 tokens"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, message, tmp_path):
    with pytest.raises(RequestError, match=message) as refusal:
        tower_of(resolve(written(tmp_path, **changes)))
    assert "\n" not in str(refusal.value)


def test_features_without_queries_are_refused_by_name(tmp_path):
    cell = cell_of(small_lvlm(FAMILY, tmp_path), attention="himix", logits="text")
    with pytest.raises(Unsupported, match=r"^himix .* the tower of aria merges its patches"):
        build(cell, "meta")
