"""LLaVA-NeXT-Video: frames against transformers' own model, their tokens and costs, refusals.

Its images are among the wrappers of tests/small.py.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.llava_next_video.processing_llava_next_video import (
    LlavaNextVideoProcessor,
)

from tests.lvlm.generation import write_weights
from tests.lvlm.test_oracles import relative
from tests.small import small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.pictures import fields_of, look
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import Pictures

KIND = "llava_next_video"
SHOWN = Pictures(resolution="90x40", frames=3)


def cell_of(name, **fields):
    own = {"scope": "lvlm", "kernel": "eager", "num_text": 5, "dtype": "float64"}
    return make_cell(model=name, **{**own, **fields, **fields_of(name, SHOWN, "V,T")})


def written(folder, images=None, **changes):
    file = Path(small_wrapper(KIND, folder)) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    if images is not None:
        (file.parent / "video_preprocessor_config.json").write_text(json.dumps(images))
    return str(file.parent)


@pytest.mark.parametrize("mode", ["average", "max"])
def test_frames_compute_what_transformers_does(mode, tmp_path):
    """A frame of 4 × 4 patches is 2 × 2 tokens; and the token that follows is the same."""
    name = written(tmp_path, spatial_pool_mode=mode)
    model = write_weights(name, seed=5)
    workload = build(cell_of(name, weights=name), pictures=SHOWN)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    inputs = torch.cat([torch.full((1, 3 * 4), 95), ids], 1)
    (found,) = workload.run_forward()
    with torch.no_grad():
        expected = model(input_ids=inputs, pixel_values_videos=pixels[None]).logits
    assert relative(found, expected) <= 1e-4
    assert torch.equal(found[:, -1].argmax(-1), expected[:, -1].argmax(-1))
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


def test_tokens_of_a_video_are_its_processor_s():
    own = SimpleNamespace(patch_size=14, video_token="<video>")
    for frames in (1, 8, 32):
        video = {"pixel_values_videos": [np.zeros((frames, 3, 336, 336))]}
        words = LlavaNextVideoProcessor.replace_video_token(own, video, 0)
        shown = tokens("llava-next-video-7b", resolution="1280x720", frames=frames)
        assert shown["num_visual"] == words.count("<video>") == 144 * frames
    alike = ("llava-next-video-7b", "llava-next-vicuna-7b")
    images = [tokens(name, resolution="1280x720")["num_visual"] for name in alike]
    assert images[0] == images[1]


def test_frames_are_squares_of_the_tower_s_size(tmp_path):
    tower = tower_of(resolve(written(tmp_path)))
    pixels = tower.preprocess([Image.new("RGB", (90, 40))] * 3, 3)
    assert pixels.shape == tower.pixels(1, (tower.frame,) * 3)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spatial_pool_mode": "conv"}, "spatial_pool_mode 'conv': average or max"),
        ({"spatial_pool_stride": 5}, "spatial_pool_stride 5: a frame has 4 patches a side"),
        ({"images": {"crop_size": {"height": 224, "width": 224}}}, "image_size 224, but config"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, message, tmp_path):
    with pytest.raises(RequestError, match=message) as refusal:
        tower_of(resolve(written(tmp_path, **changes)))
    assert "\n" not in str(refusal.value)
