"""Idefics2's images against its own processor: their sizes, and the words it writes for them."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.image_utils import SizeDict
from transformers.models.idefics2.image_processing_pil_idefics2 import (
    Idefics2ImageProcessorPil,
    get_resize_output_image_size,
)

from workbench.visual.idefics2 import Idefics2
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError

SIDES = st.integers(2, 5000)


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, st.sampled_from([(378, 980), (28, 112), (1, 50)]), st.booleans())
def test_views_are_its_processor_s(width, height, edges, splits):
    least, most = edges
    image = np.broadcast_to(np.uint8(0), (3, height, width))
    views = Idefics2ImageProcessorPil.split_images(None, image) if splits else [image]
    size = SizeDict(shortest_edge=least, longest_edge=most)
    theirs = [get_resize_output_image_size(view, size)[::-1] for view in views]
    found = Idefics2(shortest_edge=least, longest_edge=most, splits=splits)
    assert found.views(width, height) == theirs
    assert found.tokens_of_image(width, height) == 64 * len(theirs)


class Tokenizer:
    """Keeps the text as it is."""

    image_token, image_boundary_token, image_token_id, init_kwargs = "i", "|", 1, {}

    def add_special_tokens(self, tokens):
        """None is needed."""

    def __call__(self, texts, **_):
        return {"input_ids": texts}


@pytest.mark.parametrize("splits", [True, False])
def test_tokens_and_markers_are_its_processor_s(splits):
    from transformers.models.idefics2.processing_idefics2 import Idefics2Processor

    own = SimpleNamespace(
        tokenizer=Tokenizer(),
        fake_image_token="|",
        image_token="i",
        image_seq_len=64,
        image_processor=SimpleNamespace(do_image_splitting=splits),
        _merge_kwargs=lambda **_: {"text_kwargs": {}},
        _check_special_mm_tokens=lambda *_, **__: None,
    )
    (text,) = Idefics2Processor.__call__(own, text=["i"])["input_ids"]
    found = Idefics2(splits=splits)
    assert text.count("i") == found.tokens_of_image(640, 480)
    assert text.count("|") == found.markers_of_image(640, 480)


def test_of_the_catalogue():
    assert tokens("idefics2-8b", resolution="640x480")["num_visual"] == 320
    assert tokens("idefics2-8b", resolution="640x480", frames=3)["num_visual"] == 960


@pytest.mark.parametrize(
    ("both", "images", "message"),
    [
        ({"image_seq_len": 32}, {}, "image_seq_len 32, but the resampler"),
        ({}, {"size": {"height": 9, "width": 9}}, 'size .*: {"shortest_edge": pixels'),
        ({}, {"do_image_splitting": 3}, "do_image_splitting 3: true or false"),
        ({}, {"do_pad": False}, "do_pad False: only true is known"),
    ],
)
def test_settings_that_make_no_sense_are_named(both, images, message):
    files = {"preprocessor_config.json": images, "processor_config.json": both}
    with pytest.raises(RequestError, match=message) as refusal:
        Idefics2().of_files({}, files, "x")
    assert "\n" not in str(refusal.value)


def test_an_image_without_quarters_is_refused():
    with pytest.raises(RequestError, match="image of 1x900 pixels: it is shown in quarters"):
        Idefics2(splits=True).tokens_of_image(1, 900)
