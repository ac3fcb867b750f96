"""Tokens and pixels of HunyuanOCR against its processors, over a grid of sizes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.hunyuan_vl.image_processing_pil_hunyuan_vl import (
    HunYuanVLImageProcessorPil,
)
from transformers.models.hunyuan_vl.processing_hunyuan_vl import HunYuanVLProcessor

from workbench.lvlm.models import resolve
from workbench.lvlm.towers import tower_of
from workbench.visual.hunyuan_vl import HunyuanVL
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError

SIDES = st.integers(20, 4000)


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES)
def test_tokens_are_its_processor_s(width, height):
    theirs = HunYuanVLImageProcessorPil()
    rows, columns = theirs.get_number_of_image_patches(height, width)
    words = SimpleNamespace(image_token="i", cat_extra_token=True, image_processor=theirs)
    text = HunYuanVLProcessor.replace_image_token(
        words, {"image_grid_thw": [(1, rows, columns)]}, 0
    )
    assert HunyuanVL().tokens_of_image(width, height) == len(text)


def test_pixels_are_its_processor_s():
    theirs, tower = HunYuanVLImageProcessorPil(), tower_of(resolve("hunyuan-ocr-1b"))
    for width, height in ((512, 512), (640, 480), (300, 900), (31, 700), (2600, 2000)):
        noise = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(noise)
        batch = theirs(picture, return_tensors="pt")
        pixels, grids = tower.preprocess([picture], 0), tower.of_image(width, height)
        assert [list(grid[:3]) for grid in grids] == batch["image_grid_thw"].tolist()
        assert pixels.shape == tower.pixels(1, grids)
        assert torch.equal(pixels, batch["pixel_values"])


def test_of_the_catalogue():
    assert tokens("hunyuan-ocr-1b", resolution="1024x1024")["num_visual"] == 32 * 33 + 2
    found = tokens("hunyuan-ocr-1b", resolution="640x960", frames=3)
    assert found["num_visual"] == 3 * (30 * 21 + 2)


def test_steps_of_several_frames_are_one_line():
    config = {"vision_config": {"temporal_patch_size": 2}}
    with pytest.raises(RequestError, match="temporal_patch_size 2: 1, for the tower") as refusal:
        HunyuanVL().of_files(config, {}, "x")
    assert "\n" not in str(refusal.value)
