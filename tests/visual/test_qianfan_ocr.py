"""Qianfan-OCR's tiles and markers against its own processor, over grids of sizes."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qianfan_ocr.processing_qianfan_ocr import QianfanOCRProcessor

from workbench.visual.qianfan_ocr import QianfanOcr
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError

SIDES = st.integers(1, 6000)


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, st.integers(1, 3), st.integers(3, 30))
def test_tiles_and_markers_are_its_processor_s(width, height, least, most):
    limits = {"min_patches": least, "max_patches": most}
    files = {"preprocessor_config.json": {**limits, "crop_to_patches": False}}
    found = QianfanOcr().of_files({"vision_config": {}}, files, "x")
    theirs = GotOcr2ImageProcessorPil(
        size={"height": 448, "width": 448}, crop_to_patches=True, **limits
    )
    tiles = theirs.get_number_of_image_patches(height, width)
    assert QianfanOCRProcessor.images_kwargs["crop_to_patches"] is True
    words = SimpleNamespace(
        image_seq_length=256, image_token="i", start_image_token="|", end_image_token="|"
    )
    text = QianfanOCRProcessor.replace_image_token(words, {"num_patches": [tiles]}, 0)
    assert text.count("i") == found.tokens_of_image(width, height)
    assert text.count("|") == found.markers_of_image(width, height)


def test_of_the_catalogue():
    assert tokens("qianfan-ocr", resolution="448x448")["num_visual"] == 256
    assert tokens("qianfan-ocr", resolution="896x448", frames=2)["num_visual"] == 2 * 3 * 256


def test_a_size_that_config_json_leaves_out_is_its_class_s():
    files = {"preprocessor_config.json": {"size": {"height": 384, "width": 384}}}
    with pytest.raises(RequestError, match=r"image_size 384, but config\.json says 448"):
        QianfanOcr().of_files({"vision_config": {}}, files, "x")
