"""Tiles of Aya Vision and Command A Vision against their own processors, over grids of sizes."""

import ast
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.aya_vision.processing_aya_vision import AyaVisionProcessor
from transformers.models.cohere2_vision.processing_cohere2_vision import Cohere2VisionProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from workbench.visual.aya_vision import AyaVision
from workbench.visual.cohere2_vision import Cohere2Vision
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError

SIDES = st.integers(1, 6000)
TOWER = {"image_size": 364, "patch_size": 14}


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, st.integers(1, 3), st.integers(3, 30))
def test_tiles_and_markers_of_aya_vision_are_its_processor_s(width, height, least, most):
    limits = {"min_patches": least, "max_patches": most}
    files = {"preprocessor_config.json": {**limits, "crop_to_patches": False}}
    found = AyaVision().of_files({"vision_config": TOWER}, files, "x")
    theirs = GotOcr2ImageProcessorPil(
        size={"height": 364, "width": 364}, crop_to_patches=True, **limits
    )
    tiles = theirs.get_number_of_image_patches(height, width)
    assert found.tokens_of_image(width, height) == 169 * tiles
    assert AyaVisionProcessor.images_kwargs["crop_to_patches"] is True
    words = SimpleNamespace(img_size=364, patch_size=28, img_patch_token="i")
    for name in ("start_of_img_token", "end_of_img_token", "tile_global_token", "tile_token"):
        setattr(words, name, "|")
    text = AyaVisionProcessor.replace_image_token(words, {"num_patches": [tiles]}, 0)
    assert text.count("i") == found.tokens_of_image(width, height)
    assert text.count("|") == found.markers_of_image(width, height)


def its_canvas():
    """The function of its processor's module that chooses a canvas; the rest needs torchvision."""
    package = find_spec("transformers").submodule_search_locations[0]
    file = Path(package) / "models" / "cohere2_vision" / "image_processing_cohere2_vision.py"
    names = ("get_all_supported_aspect_ratios", "get_optimal_tiled_canvas")
    tree = ast.parse(file.read_text())
    wanted = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in names]
    place = {"np": np, "lru_cache": lru_cache}
    exec(compile(ast.Module(wanted, []), file, "exec"), place)
    return place["get_optimal_tiled_canvas"]


CANVAS = its_canvas()


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, st.sampled_from([1, 4, 12]))
def test_tiles_and_markers_of_command_a_vision_are_its_processor_s(width, height, most):
    found = Cohere2Vision(max_tiles=most)
    columns, rows = CANVAS((height, width), (512, 512), 1, most)
    assert found.tiles(width, height) == (columns, rows)
    tiles = columns * rows + (columns * rows > 1)
    words = SimpleNamespace(
        patch_size=16, image_token="i", img_line_break_token="|", boi_token="|", eoi_token="|"
    )
    text = Cohere2VisionProcessor.replace_image_token(words, {"num_patches": [tiles]}, 0)
    assert text.count("i") == found.tokens_of_image(width, height)
    assert text.count("|") == found.markers_of_image(width, height)


def test_of_the_catalogue():
    assert tokens("aya-vision-8b", resolution="364x364")["num_visual"] == 169
    assert tokens("aya-vision-8b", resolution="728x364", frames=2)["num_visual"] == 2 * 3 * 169
    assert tokens("command-a-vision", resolution="1024x512")["num_visual"] == 3 * 256


@pytest.mark.parametrize(
    ("kind", "config", "images", "message"),
    [
        (AyaVision, {"downsample_factor": 3}, {}, "downsample_factor 3: 26 patches a side"),
        (AyaVision, {"downsample_factor": 0}, {}, "shuffle 0: a whole number from 1"),
        (AyaVision, {}, {"size": {"height": 448, "width": 448}}, "image_size 448, but config"),
        (Cohere2Vision, {}, {"max_patches": 99}, "max_patches 99: at most 64"),
        (Cohere2Vision, {}, {"crop_to_patches": "x"}, "crop_to_patches 'x': true or false"),
        (Cohere2Vision, {}, {"patch_size": 16}, "patch_size 16: its processor puts so many"),
    ],
)
def test_settings_that_make_no_sense_are_named(kind, config, images, message):
    files = {"preprocessor_config.json": images}
    with pytest.raises(RequestError, match=message) as refusal:
        kind().of_files({"vision_config": TOWER, **config}, files, "x")
    assert "\n" not in str(refusal.value)


def test_an_image_that_is_not_cropped_is_one_tile():
    files = {"preprocessor_config.json": {"crop_to_patches": False}}
    found = Cohere2Vision().of_files({"vision_config": TOWER}, files, "x")
    assert found.tokens_of_image(3000, 500) == 169
