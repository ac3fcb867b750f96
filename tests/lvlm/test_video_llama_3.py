"""VideoLLaMA 3's video, and its tokens; its images are among those of test_wrappers.py."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import (
    VideoLlama3ImageProcessorPil,
    smart_resize,
)

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.test_oracles import relative
from tests.small import small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.pictures import fields_of, look
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.visual import VISIONS, Limits
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.protocol import Protocol

KIND = "video_llama_3"
FRONT = VISIONS["video-llama-3"]
SIDES = st.integers(1, 4000)
SMALL = {
    "video_preprocessor_config.json": {
        "merge_size": 2,
        "size": {"shortest_edge": 28 * 28, "longest_edge": 40 * 28 * 28},
    }
}
"""Frames of few tokens, in the files of a small model."""


def written(folder, files=SMALL):
    name = small_wrapper(KIND, folder)
    for file, fields in files.items():
        (folder / KIND / file).write_text(json.dumps(fields))
    return name


def filmed(name, frames=3, **fields):
    """A cell that shows a video, and it."""
    pictures = Pictures(resolution="100x60", frames=frames)
    own = {"scope": "lvlm", "kernel": "eager", "num_text": 5, "dtype": "float64", **fields}
    return make_cell(model=name, **own, **fields_of(name, pictures, "V,T")), pictures


@pytest.mark.parametrize("batch", [1, 2])
def test_frames_generate_what_transformers_does(batch, tmp_path):
    """Patches of a frame shrink 2 × 2; all tokens, as without its processor's compression."""
    name = written(tmp_path)
    model = write_weights(name, seed=5)
    cell, pictures = filmed(name, weights=name, batch=batch)
    workload = build(cell, pictures=pictures)
    pixels, ids = workload.inputs
    pixels.normal_()
    ids.clamp_(max=90)
    grids = look(tower_of(resolve(name)), pictures).grids
    assert len(grids) == 3
    assert cell.num_visual == sum(grid.patches for grid in grids) // 4
    inputs = torch.cat([torch.full((batch, cell.num_visual), 95), ids], 1)
    given_ = {
        "pixel_values_videos": pixels,
        "video_grid_thw": torch.tensor([[3, *grids[0][1:3]]] * batch),
        "video_merge_sizes": torch.full((batch,), 2),
    }
    with torch.no_grad():
        expected = model(input_ids=inputs, **given_).logits
        assert relative(workload.module(pixels, ids), expected) <= 1e-4
        wanted = model.generate(input_ids=inputs, **given_, max_new_tokens=3, **GREEDY)
    ids = extend(ids, 3, lambda num: build(cell.replace(num_text=num), pictures=pictures), pixels)
    assert torch.equal(ids[:, 5:], wanted[:, -3:])


@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_costs_of_a_video_are_the_counts(pass_, tmp_path):
    cell, pictures = filmed(written(tmp_path), dtype="float32", **{"pass": pass_})
    traced, tower = trace(cell, pictures=pictures), tower_of(resolve(cell.model))
    assert traced.flops == traced.model_flops
    grids = look(tower, pictures).grids
    outside = tower.tower_flops(grids) + tower.adapter_flops(grids)
    if pass_ == "train":
        outside = 3 * outside - tower.patch_flops(grids)
    assert traced.model_flops - trace(cell.replace(scope="decoder")).model_flops == outside


def test_a_video_s_prediction_is_what_is_measured(tmp_path):
    cell, pictures = filmed(written(tmp_path), dtype="float32", **{"pass": "train"})
    once = Protocol(min_samples=1, precision=None)
    measured, predicted = measure(cell, "cpu", once, pictures=pictures), predict(cell, "cpu")
    for metric in ("params", "weight_bytes"):
        assert measured.metrics[metric] == predicted.metrics[metric]
    shown = predict(cell, "cpu", pictures=pictures)
    assert measured.metrics["flops"] == shown.metrics["flops"]
    ratio = shown.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.05)


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, st.integers(1, 400))
def test_tokens_are_its_processors(width, height, frames):
    """Of an image by its processor, of frames by the rule of its video processor."""
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(RequestError, match="200 to 1"):
            FRONT.tokens_of_image(width, height)
        return
    patches = VideoLlama3ImageProcessorPil().get_number_of_image_patches(height, width)
    assert FRONT.tokens_of_image(width, height) == patches
    limits = {"min_pixels": 128 * 28 * 28, "max_pixels": 768 * 28 * 28 // frames}
    high, wide = smart_resize(height, width, 28, **limits)
    assert FRONT.resized_frame(width, height, frames) == (wide, high)
    assert FRONT.tokens_of_video(width, height, frames) == frames * high * wide // 28**2


def test_frames_are_sampled_as_qwen_s_one_by_one():
    assert [FRONT.sampled(*video) for video in ((300, 30.0, 1.0), (90, 30.0, 1.0))] == [10, 4]
    assert FRONT.sampled(9000, 30.0, 1.0) == 180
    assert FRONT.sampled(3, 30.0, 1.0) == 3


def test_pixels_are_its_processor_s(tmp_path):
    tower = tower_of(resolve(written(tmp_path, {})))
    picture = Image.effect_noise((200, 110), 70).convert("RGB")
    batch = VideoLlama3ImageProcessorPil()([picture], return_tensors="pt")
    assert torch.equal(tower.preprocess([picture], 0), batch["pixel_values"])
    assert tower.of_image(200, 110)[0][:3] == tuple(batch["image_grid_thw"][0].tolist())


def test_a_video_says_what_only_its_frames_tell(tmp_path):
    asked = {"resolution": "640x480", "frames": 8}
    assert any("drops tokens" in note for note in tokens("videollama3-7b", **asked)["notes"])
    (flag,) = tower_of(resolve("videollama3-2b")).flags
    assert "use_token_compression" in flag
    never = {"video_preprocessor_config.json": {"merge_size": 2, "use_token_compression": False}}
    name = written(tmp_path, never)
    assert not any("drops tokens" in note for note in tokens(name, **asked)["notes"])
    assert not tower_of(resolve(name)).flags


def test_limits_of_a_request():
    wide = FRONT.asked(Limits(max_video_tokens=10_000))
    assert wide.video_max_pixels == 10_000 * 28 * 28
    assert wide.max_pixels == FRONT.max_pixels
    assert FRONT.asked(Limits(max_pixels=14 * 14 * 64)).tokens_of_image(900, 900) == 64
    with pytest.raises(RequestError, match="more than the 602,112 pixels"):
        FRONT.resized_frame(64, 64, 602_113)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"preprocessor_config.json": {"temporal_patch_size": 2}}, "patches of one frame, 1"),
        (
            {"video_preprocessor_config.json": {"use_token_compression": 1}},
            "use_token_compression 1: true or false",
        ),
        ({"preprocessor_config.json": {"patch_size": 16}}, "patch_size 16, but config.json says"),
        ({"preprocessor_config.json": {"merge_size": 0}}, "merge_size 0: a whole number from 1"),
    ],
)
def test_files_that_make_no_sense_are_one_line(files, reason, tmp_path):
    with pytest.raises(RequestError) as refusal:
        tower_of(resolve(written(tmp_path, files)))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_size": 44}, "a multiple of 4 for each of 2 heads"),
        ({"patch_size": [14, 14]}, "patch_size [14, 14]: a number"),
    ],
)
def test_towers_that_make_no_sense_are_one_line(changes, reason, tmp_path):
    name = written(tmp_path, {})
    config = tmp_path / KIND / "config.json"
    fields = json.loads(config.read_text())
    fields["vision_config"] |= changes
    config.write_text(json.dumps(fields))
    with pytest.raises(RequestError) as refusal:
        tower_of(resolve(name))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
