"""LightOnOCR's tokens against its own processor, over a grid of sizes."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.lighton_ocr.processing_lighton_ocr import LightOnOcrProcessor
from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size

from workbench.visual.lighton_ocr import LightOnOcr
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError

SIDES = st.integers(29, 3000)


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.sampled_from([14, 28]), st.sampled_from([300, 1540]))
def test_tokens_are_its_processor_s(width, height, unit, edge):
    picture = np.broadcast_to(np.uint8(0), (height, width, 3))
    size = get_resize_output_image_size(picture, (edge, edge), (unit, unit), "channels_last")
    words = SimpleNamespace(effective_patch_size=28, image_token="i")
    text = LightOnOcrProcessor.replace_image_token(words, {"image_sizes": [size]}, 0)
    found = LightOnOcr(unit=unit, longest_edge=edge)
    assert found.patches(width, height) == tuple(side // 14 for side in size)
    if not text:
        with pytest.raises(RequestError, match="fewer than the 2 patches of a token"):
            found.tokens_of_image(width, height)
        return
    assert found.tokens_of_image(width, height) == len(text)
    assert found.markers_of_image(width, height) == 0


def test_of_the_catalogue_and_of_files():
    assert tokens("lighton-ocr-1b", resolution="1540x1540")["num_visual"] == 3025
    assert tokens("lighton-ocr-1b", resolution="70x70")["num_visual"] == 4
    tower = {"vision_config": {"patch_size": 14, "image_size": 1540}}
    files = {"preprocessor_config.json": {"patch_size": {"height": 28, "width": 28}}}
    assert LightOnOcr().of_files(tower, files, "x").tokens_of_image(70, 70) == 9
    files = {"preprocessor_config.json": {"patch_size": 14, "size": {"longest_edge": 20}}}
    with pytest.raises(RequestError, match="longest edge 20: shorter than the 28 pixels"):
        LightOnOcr().of_files(tower, files, "x")
    for said in ({"patch_size": 16}, {}):  # 16 is its class's own.
        files = {"preprocessor_config.json": said}
        with pytest.raises(RequestError, match="patch_size 16: no multiple of the tower's 14"):
            LightOnOcr().of_files(tower, files, "x")
