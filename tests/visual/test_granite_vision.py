"""Tokens and pixels of Granite's models against their processors, over grids of sizes."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.granite4_vision.processing_granite4_vision import Granite4VisionProcessor
from transformers.models.granite_docling.image_processing_pil_granite_docling import (
    GraniteDoclingImageProcessorPil,
)
from transformers.models.granite_docling.processing_granite_docling import (
    GraniteDoclingProcessor,
)
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.towers import tower_of
from workbench.visual.granite4_vision import Granite4Vision
from workbench.visual.granite_docling import GraniteDocling
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


DOCLING = "granite-for-docling-500m"
DENSE = {
    "dense_max_patches": 40,
    "dense_max_scale": 0.9,
    "dense_min_aspect": 1.2,
    "dense_max_aspect": 4.0,
}
"""A rule for wide pages; transformers' default has none."""


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, st.sampled_from([1, 6, 32]), st.sampled_from([{}, DENSE]), st.booleans())
def test_tiles_and_markers_of_docling_are_its_processor_s(width, height, most, dense, fine):
    files = {"preprocessor_config.json": {"max_patches": most, "fine_route": fine, **dense}}
    found = GraniteDocling().of_files({"vision_config": {}}, files, "x")
    theirs = GraniteDoclingImageProcessorPil(max_patches=most, fine_route=fine, **dense)
    rows, columns = theirs.get_tile_grid(height, width)
    assert found.tiles(width, height) == (columns, rows)
    words = GraniteDoclingProcessor.__new__(GraniteDoclingProcessor)
    words.fake_image_token, words.image_token, words.global_image_tag = "|", "i", "|"
    words.image_seq_len = 64
    inputs = {"rows": [[rows]], "cols": [[columns]]} | ({"tile_fine_mask": None} if fine else {})
    text = words.replace_image_token(inputs, 0)
    for place in ("_", "row", "col", "<", ">", *map(str, range(10))):
        text = text.replace(place, "")
    pairs = rows * columns  # One of a tile's two markers has no letter that is left.
    assert text.count("i") == found.tokens_of_image(width, height)
    marks = text.count("|") + text.count("\n") + pairs
    assert marks == found.markers_of_image(width, height)
    assert tokens(DOCLING, resolution="512x512")["num_visual"] == 64


@pytest.mark.parametrize("dense", [{}, DENSE])
def test_pixels_of_docling_are_its_processor_s(dense, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(MODELS[DOCLING].stated()))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(dense))
    theirs, tower = GraniteDoclingImageProcessorPil(**dense), tower_of(resolve(str(tmp_path)))
    for width, height in ((512, 512), (640, 480), (300, 900), (31, 700), (4000, 1800)):
        noise = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(noise)
        wanted = theirs(picture, return_tensors="pt")["pixel_values"].flatten(0, 1)
        pixels = tower.preprocess([picture], 0)
        assert pixels.shape == tower.pixels(1, tower.of_image(width, height))
        assert torch.equal(pixels, wanted)


def test_the_docling_models_of_idefics3_s_form():
    """2,048 pixels of the longer edge, in tiles of 512 pixels."""
    for name in ("granite-docling-258m", "smoldocling-256m"):
        assert tokens(name, resolution="1024x1024")["num_visual"] == 17 * 64
        assert tokens(name, resolution="1700x2200")["num_visual"] == 17 * 64
