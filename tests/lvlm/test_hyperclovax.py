"""HyperCLOVA X: transformers' own results with every factor, its images and video, and costs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.hyperclovax_vision_v2.processing_hyperclovax_vision_v2 import (
    HyperCLOVAXVisionV2Processor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.test_oracles import relative
from tests.small import small_lvlm, small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.pictures import fields_of, look
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.visual import VISIONS
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

FAMILY = "hyperclovax"
SHOWN = [Pictures(resolution="90x60", count=2), Pictures(resolution="90x60", frames=4, fps=1.0)]


def cell_of(name, pictures=SHOWN[0], **fields):
    own = {"scope": "lvlm", "kernel": "eager", "num_text": 5, "dtype": "float64"}
    return make_cell(model=name, **{**own, **fields, **fields_of(name, pictures, "V,T")})


def written(folder, make=small_lvlm, **text):
    """A small folder with other fields of its text model."""
    file = Path(make(FAMILY, folder), "config.json")
    config = json.loads(file.read_text())
    (config if make is small_model else config["text_config"]).update(text)
    file.write_text(json.dumps(config))
    return str(file.parent)


PLAIN = {"residual_multiplier": 1.0, "embedding_multiplier": 1.0, "logits_scaling": 1.0}
KINDS = [{}, {"use_post_norm": False}, PLAIN, {**PLAIN, "use_post_norm": False}]


@pytest.mark.parametrize("fields", KINDS)
def test_the_text_model_generates_as_transformers_own(fields, tmp_path):
    name = written(tmp_path, small_model, **fields)
    model = write_weights(name, AutoModelForCausalLM, std=0.3)
    cell = make_cell(
        model=name, weights=name, scope="decoder", kernel="eager", dtype="float64", num_visual=0
    )
    ids = torch.tensor([[1, 5, 9, 33]])
    first = build(cell.replace(num_text=4))
    with torch.no_grad():
        assert relative(first.module(None, ids), model(input_ids=ids).logits) <= 1e-4
        wanted = model.generate(input_ids=ids, max_new_tokens=4, **GREEDY)
    found = extend(ids, 4, lambda num: build(cell.replace(num_text=num)), None)
    assert torch.equal(found, wanted)
    assert not any(flag.startswith("logit_scale") for flag in predict(cell, "cpu").flags)


@pytest.mark.parametrize("pictures", SHOWN)
def test_images_and_video_generate_as_transformers_own(pictures, tmp_path):
    """Visual rows are multiplied as embeddings are, and logits by the whole's class too."""
    name = small_lvlm(FAMILY, tmp_path)
    model = write_weights(name, std=0.2)
    cell = cell_of(name, pictures, weights=name)
    workload = build(cell, pictures=pictures)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    sizes = torch.tensor([grid[:3] for grid in look(tower_of(resolve(name)), pictures).grids])
    extra, token = {"pixel_values": pixels, "image_grid_thw": sizes}, 96
    if pictures.frames is not None:
        extra, token = {"pixel_values_videos": pixels, "video_grid_thw": sizes}, 95
    inputs = torch.cat([torch.full((1, cell.num_visual), token), ids], 1)
    with torch.no_grad():
        assert (
            relative(workload.module(pixels, ids), model(input_ids=inputs, **extra).logits) < 1e-4
        )
        wanted = model.generate(input_ids=inputs, **extra, max_new_tokens=3, **GREEDY)
    more = extend(ids, 3, lambda num: build(cell.replace(num_text=num), pictures=pictures), pixels)
    assert torch.equal(more[:, 5:], wanted[:, -3:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)
    assert not any(flag.startswith("logit_scale") for flag in predict(cell, "cpu").flags)


@settings(max_examples=100, deadline=None)
@given(st.integers(30, 3000), st.integers(30, 3000))
def test_tokens_of_an_image_are_its_processor_s(width, height):
    eye = VISIONS["hyperclovax-vision"]
    processor = Qwen2VLImageProcessorPil(min_pixels=eye.min_pixels, max_pixels=eye.max_pixels)
    patches = torch.tensor(processor.get_number_of_image_patches(height, width))
    words = SimpleNamespace(image_processor=processor, image_token="i")
    text = HyperCLOVAXVisionV2Processor.replace_image_token(
        words, {"image_grid_thw": [patches[None]]}, 0
    )
    assert eye.tokens_of_image(width, height) == len(text)


def test_parameters_are_transformers_own(tmp_path):
    model = resolve(small_lvlm(FAMILY, tmp_path))
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
        text = AutoModelForCausalLM.from_config(resolve("hyperclovax-seed-think-14b").config)
    found = trace(cell_of(model.name))
    assert found.params == sum(p.numel() for p in whole.parameters())
    cell = make_cell(model="hyperclovax-seed-think-14b", scope="decoder", num_visual=8)
    found = trace(cell).params
    assert found == sum(p.numel() for p in text.parameters()) == 14_748_112_896


@pytest.mark.parametrize("pictures", SHOWN)
@pytest.mark.parametrize("frozen", [None, "tower", "tower,adapter"])
def test_costs_are_the_counts(pictures, frozen, tmp_path):
    cell = cell_of(
        small_lvlm(FAMILY, tmp_path), pictures, frozen=frozen, dtype="float32", **{"pass": "train"}
    )
    found = trace(cell, pictures=pictures)
    assert found.flops == found.model_flops
    if frozen is None:
        tower = tower_of(resolve(cell.model))
        grids = look(tower, pictures).grids
        outside = 3 * (tower.tower_flops(grids) + tower.adapter_flops(grids))
        decoder = trace(cell.replace(scope="decoder"))
        assert found.model_flops - decoder.model_flops == outside - tower.patch_flops(grids)


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_sum"])
def test_predicted_is_measured(system, tmp_path):
    cell = cell_of(small_lvlm(FAMILY, tmp_path), attention=system, dtype="float32")
    cell = cell.replace(**{"pass_": "train"})
    predicted, protocol = predict(cell, "cpu"), Protocol(min_samples=1, precision=None)
    measured = measure(cell, "cpu", protocol)
    assert measured.status == predicted.status == Status.OK
    for metric in ("flops", "params"):
        assert measured.metrics[metric] == predicted.metrics[metric]
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("fields", KINDS)
def test_d_attn_full_equals_s_attn(fields, tmp_path):
    name = written(tmp_path, small_model, **fields)
    own = {"scope": "decoder", "pass": "train", "layout": "T,V,T", "num_visual": 32}
    cell = make_cell(model=name, kernel="eager", dtype="float64", num_text=8, **own)
    one, other = (build(cell.replace(attention=a)) for a in ("s_attn", "d_attn_full"))
    other.module.load_state_dict(one.module.state_dict())
    for a, b in zip(one.inputs, other.inputs, strict=True):
        b.data.copy_(a.data)
    for workload in (one, other):
        workload.run_backward(workload.run_forward())
    assert relative(other.inputs[0].grad, one.inputs[0].grad) <= 1e-6


@pytest.mark.parametrize(
    "fields", [{"residual_multiplier": 0.0}, {"logits_scaling": "x"}, {"embedding_multiplier": -1}]
)
def test_a_factor_that_makes_no_sense_is_one_line(fields, tmp_path):
    ((field, _),) = fields.items()
    with pytest.raises(RequestError, match=f"{field} .*: a number above 0") as refusal:
        resolve(written(tmp_path, **fields))
    assert "\n" not in str(refusal.value)
