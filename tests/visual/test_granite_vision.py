"""Tokens and pixels of Granite Vision against its processors, over grids of sizes."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.granite4_vision.processing_granite4_vision import Granite4VisionProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.towers import tower_of
from workbench.visual.granite4_vision import Granite4Vision
from workbench.visual.llava_next import GRANITE
from workbench.visual.tokens import front_end_of, tokens
from workbench.vocabulary.errors import RequestError

SIDES = st.integers(1, 5000)
THREE, FOUR = "granite-vision-3.3-2b", "granite-vision-4.1-4b"
PREPARED = {
    "crop_size": {"height": 384, "width": 384},
    "do_center_crop": True,
    "image_grid_pinpoints": [list(pair) for pair in GRANITE],
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "size": {"height": 384, "width": 384},
}
"""preprocessor_config.json of both, as written from memory."""


def processor(kind, patch, **own):
    """The counting of transformers' processor, which would need a tokenizer."""
    found = kind.__new__(kind)
    found.image_processor = LlavaNextImageProcessorPil(**PREPARED)
    found.patch_size, found.num_additional_image_tokens = patch, 0
    found.vision_feature_select_strategy = "full"
    for name, value in own.items():
        setattr(found, name, value)
    return found


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES)
def test_tokens_are_those_of_its_processors(width, height):
    three = processor(LlavaNextProcessor, 14)
    wanted = three._get_number_of_features(height, width, 384, 384)
    assert front_end_of(THREE).tokens_of_image(width, height) == wanted
    four = processor(Granite4VisionProcessor, 16, downsample_rate="4/8")
    wanted = four._get_number_of_features(height, width, 384, 384)
    assert front_end_of(FOUR).tokens_of_image(width, height) == wanted


@pytest.mark.parametrize("name", [THREE, FOUR])
def test_pixels_are_those_of_its_processor(name):
    theirs, tower = LlavaNextImageProcessorPil(**PREPARED), tower_of(resolve(name))
    for width, height in ((384, 384), (640, 480), (300, 900), (31, 700), (1280, 720)):
        noise = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(noise)
        wanted = theirs(picture, return_tensors="pt")["pixel_values"].flatten(0, 1)
        grids = tower.of_image(width, height)
        pixels = tower.preprocess([picture], 0)
        assert pixels.shape == tower.pixels(1, grids)
        assert torch.equal(pixels, wanted)


def test_of_the_catalogue():
    assert tokens(THREE, resolution="384x384")["num_visual"] == 27 * 27 + 27 * 28
    assert tokens(FOUR, resolution="384x384")["num_visual"] == 12 * 12 + 12 * 13
    assert tokens(FOUR, resolution="768x384")["num_visual"] == 144 + 12 * 25


@pytest.mark.parametrize("name", [THREE, FOUR])
def test_a_folder_with_its_processor_s_files_is_the_same(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(MODELS[name].stated()))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPARED))
    asked = {"resolution": "1280x720"}
    assert tokens(str(tmp_path), **asked)["num_visual"] == tokens(name, **asked)["num_visual"]


def test_rates_of_config_and_processor_that_differ_are_one_line():
    config = {"downsample_rate": "4/8", "vision_feature_select_strategy": "full"}
    files = {"processor_config.json": {"downsample_rate": "2/4"}}
    with pytest.raises(RequestError, match="downsample_rate '2/4', but config") as refusal:
        Granite4Vision().of_files(config, files, "x")
    assert "\n" not in str(refusal.value)
