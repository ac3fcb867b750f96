"""Ovis2's tiles and markers against its own processor, over grids of sizes."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.ovis2 import image_processing_pil_ovis2 as theirs
from transformers.models.ovis2.processing_ovis2 import Ovis2Processor

from workbench.visual.ovis2 import Ovis2
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError

SIDES = st.integers(1, 6000)
TOWER = {"image_size": 448, "patch_size": 14, "hidden_stride": 2}
FILE = {"crop_to_patches": True, "size": {"height": 448, "width": 448}}


def of_files(**images):
    return Ovis2().of_files({"vision_config": TOWER}, {"preprocessor_config.json": images}, "x")


def expect(found, width, height, grid):
    """Tokens and markers are those of the processor's text for rows and columns of tiles."""
    words = SimpleNamespace(image_seq_length=256)
    inputs = {"grids": torch.tensor([grid])}
    text = Ovis2Processor.replace_image_token(words, inputs, 0)
    assert text.count("<IMG_ATOM>") == found.tokens_of_image(width, height)
    markers = text.replace("<IMG_ATOM>", "").count("<")
    assert markers == found.markers_of_image(width, height)


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, st.sampled_from([2, 9, 12, 20]))
def test_a_covering_canvas_is_its_processor_s(width, height, most):
    columns, rows = theirs.get_min_tile_covering_grid((height, width), 448, most)
    found = of_files(**FILE, max_patches=most)
    assert found.tiles(width, height) == (columns, rows)
    expect(found, width, height, [rows, columns])


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, st.integers(1, 3), st.integers(3, 20))
def test_a_canvas_of_the_nearest_shape_is_its_processor_s(width, height, least, most):
    limits = {"min_patches": least, "max_patches": most}
    columns, rows = theirs.get_optimal_tiled_canvas((height, width), (448, 448), least, most)
    found = of_files(**FILE, use_covering_area_grid=False, **limits)
    assert found.tiles(width, height) == (columns, rows)
    expect(found, width, height, [rows, columns])


@pytest.mark.parametrize("size", [(61, 40), (40, 130), (1500, 700), (448, 448), (3, 2000)])
@pytest.mark.parametrize("fields", [{}, {"max_patches": 1}, {"crop_to_patches": False}])
def test_pixels_are_as_many_tiles(size, fields):
    found = of_files(**FILE | fields)
    processor = theirs.Ovis2ImageProcessorPil(**FILE | fields)
    made = processor(torch.zeros(3, *reversed(size)).numpy(), return_tensors="np")
    assert len(made["pixel_values"]) == found.num_tiles(*size)
    assert tuple(made["grids"][0]) == tuple(reversed(found.tiles(*size)))


def test_of_the_catalogue():
    assert tokens("ovis2-8b", resolution="448x448")["num_visual"] == 256
    shown = tokens("ovis2-8b", resolution="896x448", frames=2)
    assert shown["num_visual"] == 2 * 3 * 256
    assert tokens("ovis2-8b", resolution="896x448")["markers"] == 4


def test_a_file_that_leaves_a_setting_out_has_its_class_s():
    found = of_files(size={"height": 448, "width": 448})
    assert found.tokens_of_image(3000, 500) == 256
    assert found.covering
    with pytest.raises(RequestError, match=r"image_size 384, but config\.json says 448"):
        of_files(crop_to_patches=True)


@pytest.mark.parametrize(
    ("tower", "images", "both", "message"),
    [
        ({"hidden_stride": 3}, FILE, {}, "hidden_stride 3: 32 patches a side are no multiple"),
        ({"hidden_stride": 0}, FILE, {}, "merge 0: a whole number from 1"),
        ({}, FILE | {"max_patches": 300}, {}, "max_patches 300: at most 256"),
        ({}, FILE | {"crop_to_patches": "x"}, {}, "crop_to_patches 'x': true or false"),
        ({}, FILE, {"image_seq_length": 64}, "image_seq_length 64: its processor puts so many"),
    ],
)
def test_settings_that_make_no_sense_are_named(tower, images, both, message):
    files = {"preprocessor_config.json": images, "processor_config.json": both}
    with pytest.raises(RequestError, match=message) as refusal:
        Ovis2().of_files({"vision_config": TOWER | tower}, files, "x")
    assert "\n" not in str(refusal.value)
