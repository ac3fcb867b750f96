"""Llama 3.2 Vision's tiles against its own processor, over a grid of sizes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.mllama.image_processing_pil_mllama import get_optimal_tiled_canvas

from workbench.visual.mllama import Mllama
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([1, 2, 4, 6]))
def test_tiles_are_its_processor_s(width, height, most):
    canvas = get_optimal_tiled_canvas(height, width, most, 560)
    found = Mllama(max_tiles=most)
    assert found.canvas(width, height) == tuple(int(side) // 560 for side in canvas)
    assert found.tokens_of_image(width, height) == canvas[0] * canvas[1] // 560**2 * 1601


def test_of_the_catalogue_and_of_a_file():
    assert tokens("llama-3.2-11b-vision", resolution="1280x720")["num_visual"] == 4 * 1601
    config = {"model_type": "mllama", "vision_config": {"image_size": 448, "max_num_tiles": 4}}
    assert Mllama().of_files(config, {}, "x").tokens_of_image(448, 448) == 1025
    with pytest.raises(RequestError, match="max_tiles 65: at most 64"):
        Mllama().of_files({"vision_config": {"max_num_tiles": 65}}, {}, "x")
