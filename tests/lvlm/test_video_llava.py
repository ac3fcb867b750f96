"""Video-LLaVA: frames against transformers' own model, which tower runs, tokens, pixels, refusals.

Its images are among the wrappers of tests/small.py.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.video_llava.image_processing_video_llava import VideoLlavaImageProcessor
from transformers.models.video_llava.processing_video_llava import VideoLlavaProcessor

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.test_oracles import relative
from tests.small import small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.pictures import fields_of, look
from workbench.lvlm.towers import Grid, tower_of
from workbench.probe.counting.trace import trace
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.pictures import Pictures

KIND = "video_llava"
SHOWN = Pictures(resolution="90x40", frames=3)
IMAGES = Pictures(resolution="90x40", count=2)


def cell_of(name, pictures=SHOWN, **fields):
    own = {"scope": "lvlm", "kernel": "eager", "num_text": 5, "dtype": "float64"}
    return make_cell(model=name, **{**own, **fields, **fields_of(name, pictures, "V,T")})


def written(folder, beside=None, **changes):
    file = Path(small_wrapper(KIND, folder)) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    for other, fields in (beside or {}).items():
        (file.parent / other).write_text(json.dumps(fields))
    return str(file.parent)


@pytest.mark.parametrize("strategy", ["default", "full"])
def test_frames_compute_what_transformers_does(strategy, tmp_path):
    """A frame of 4 × 4 patches is 17 tokens under either strategy; and the tokens that follow."""
    name = written(tmp_path, vision_feature_select_strategy=strategy)
    model = write_weights(name, seed=5)
    workload = build(cell_of(name, weights=name), pictures=SHOWN)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    inputs = torch.cat([torch.full((1, 3 * 17), 95), ids], 1)
    (found,) = workload.run_forward()
    with torch.no_grad():
        expected = model(input_ids=inputs, pixel_values_videos=pixels[None]).logits
        then = model.generate(
            input_ids=inputs, pixel_values_videos=pixels[None], max_new_tokens=3, **GREEDY
        )
    assert relative(found, expected) <= 1e-4
    cell = cell_of(name, weights=name)
    more = extend(ids, 3, lambda num: build(cell.replace(num_text=num), pictures=SHOWN), pixels)
    assert torch.equal(more[:, 5:], then[:, -3:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


@pytest.mark.parametrize("pictures", [SHOWN, IMAGES])
def test_one_tower_runs_and_the_other_is_held(pictures, tmp_path):
    """Of the tower that is not shown nothing is trained, and transformers gives it no gradient."""
    name = written(tmp_path)
    model = write_weights(name, seed=5)
    cell = cell_of(name, pictures, weights=name, **{"pass": "train"})
    workload = build(cell, pictures=pictures)
    assert workload.num_parameters == sum(p.numel() for p in model.parameters())
    pixels, ids = workload.inputs[:2]
    rows = workload.modules["tower"]
    frames = pictures is SHOWN
    shown, held = model.model.image_tower, model.model.video_tower
    shown, held = (held, shown) if frames else (shown, held)
    for mine, its in ((rows.tower, shown), (rows.held, held)):
        its = dict(its.named_parameters())
        for key, parameter in mine.named_parameters():
            assert torch.equal(parameter, its[key])
    inputs = torch.cat([torch.full((1, cell.num_visual), 95 if frames else 96), ids], 1)
    extra = {"pixel_values_videos": pixels[None]} if frames else {"pixel_values": pixels}
    model(input_ids=inputs.clamp(max=96), **extra).logits.sum().backward()
    assert all(p.grad is None for p in held.parameters())
    assert any(p.grad is not None for p in shown.parameters())
    assert not any(p.requires_grad for p in rows.held.parameters())


def test_tokens_are_its_processor_s():
    own = SimpleNamespace(
        patch_size=14,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        image_token="i",
        video_token="v",
    )
    for frames in (1, 8, 32):
        video = {"pixel_values_videos": [np.zeros((frames, 3, 224, 224))]}
        words = VideoLlavaProcessor.replace_video_token(own, video, 0)
        shown = tokens("video-llava-7b", resolution="1280x720", frames=frames)
        assert shown["num_visual"] == words.count("v") == 257 * frames
    image = {"pixel_values": [np.zeros((3, 224, 224))]}
    words = VideoLlavaProcessor.replace_image_token(own, image, 0)
    assert tokens("video-llava-7b", resolution="1280x720")["num_visual"] == words.count("i") == 256


@pytest.mark.parametrize("size", [(90, 40), (40, 90), (300, 301)])
def test_pixels_of_images_and_frames_are_its_processor_s(size, tmp_path):
    tower = tower_of(resolve(written(tmp_path)))
    noise = np.random.default_rng(3).integers(256, size=(*reversed(size), 3), dtype=np.uint8)
    pictures = [Image.fromarray(noise)] * 2
    theirs = VideoLlavaImageProcessor(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    made = theirs(pictures, return_tensors="pt", return_legacy_image_output=False)
    for frames in (0, 2):
        assert torch.equal(tower.preprocess(pictures, frames), made["pixel_values"])


def test_a_number_of_tokens_stands_for_images_or_for_frames():
    tower = tower_of(resolve("video-llava-7b"))
    frame = Grid(1, 1, 257, 1.0)
    assert tower.grids(512) == (Grid(1, 1, 256),) * 2
    assert tower.grids(2056) == (frame,) * 8
    assert tower.of_video(640, 480, 2, 4.0) == ((frame._replace(seconds=0.25),),) * 2
    with pytest.raises(RequestError, match="256 tokens an image; the nearest are 256 and 512"):
        tower.grids(300)


@pytest.mark.parametrize("frozen", [None, "tower", "tower,adapter"])
def test_costs_of_frames_are_the_counts(frozen, tmp_path):
    fields = {"dtype": "float32", "pass": "train", "frozen": frozen}
    cell = cell_of(small_wrapper(KIND, tmp_path), **fields)
    found = trace(cell, pictures=SHOWN)
    assert found.flops == found.model_flops
    assert found.flops == trace(cell).flops  # |V| of frames alone stands for frames.
    if frozen is None:
        tower = tower_of(resolve(cell.model))
        grids = look(tower, SHOWN).grids
        outside = 3 * (tower.tower_flops(grids) + tower.adapter_flops(grids))
        decoder = trace(cell.replace(scope="decoder"))
        assert found.model_flops - decoder.model_flops == outside - tower.patch_flops(grids)


def test_a_prediction_of_frames_is_what_is_measured(tmp_path):
    cell = cell_of(small_wrapper(KIND, tmp_path), dtype="float32", **{"pass": "train"})
    _, predicted = assert_measured(cell, 0.05, ("flops", "params"))
    assert any("images go through one tower and frames" in flag for flag in predicted.flags)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_feature_layer": [-2, -1]}, "takes one of its 3 layers"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "which scope lvlm does not"),
        (
            {"beside": {"video_preprocessor_config.json": {"crop_size": 224}}},
            "image_size 224, but config",
        ),
        (
            {"beside": {"processor_config.json": {"patch_size": 16}}},
            "patch_size 16: its processor",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, message, tmp_path):
    with pytest.raises(RequestError, match=message) as refusal:
        tower_of(resolve(written(tmp_path, **changes)))
    assert "\n" not in str(refusal.value)


def test_features_without_an_adapter_are_refused_by_name():
    cell = make_cell(
        model="video-llava-7b", scope="lvlm", num_visual=256, attention="himix", logits="text"
    )
    with pytest.raises(Unsupported, match=r"^himix .* the tower of video-llava takes another"):
        build(cell, "meta")
