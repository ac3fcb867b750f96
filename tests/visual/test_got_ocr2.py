"""GOT-OCR 2's tokens against its own processor."""

import pytest
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.got_ocr2.processing_got_ocr2 import GotOcr2Processor

from workbench.visual.got_ocr2 import GotOcr2
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError


def test_an_image_is_a_square_whatever_a_file_says():
    settings = GotOcr2Processor.images_kwargs
    theirs = GotOcr2ImageProcessorPil(size={"height": 1024, "width": 1024}, **settings)
    files = {"preprocessor_config.json": {"crop_to_patches": True}}
    found = GotOcr2().of_files({"vision_config": {}}, files, "x")
    for width, height in ((1, 900), (640, 480), (1024, 1024), (5000, 700)):
        squares = theirs.get_number_of_image_patches(height, width, settings)
        assert found.tokens_of_image(width, height) == 256 * squares
        assert tokens("got-ocr-2", resolution=f"{width}x{height}")["num_visual"] == 256
    assert GotOcr2Processor.num_image_tokens == 256


def test_a_square_of_another_size_is_named():
    files = {"preprocessor_config.json": {"size": {"height": 512, "width": 512}}}
    with pytest.raises(RequestError, match=r"image_size 512, but config\.json says 1024"):
        GotOcr2().of_files({"vision_config": {}}, files, "x")
