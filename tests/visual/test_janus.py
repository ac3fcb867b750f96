"""Janus's tokens and markers against its own processor."""

from types import SimpleNamespace

import pytest
from transformers.models.janus.configuration_janus import JanusVisionConfig

from workbench.visual.janus import Janus
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError


def test_every_image_has_as_many():
    config = JanusVisionConfig()
    found = Janus().of_files({"vision_config": {}}, {}, "x")
    assert (found.image_size, found.patch_size) == (config.image_size, config.patch_size)
    for size in ("10x900", "384x384"):
        assert tokens("janus-pro-1b", resolution=size)["num_visual"] == config.num_image_tokens


def test_markers_are_its_processor_s():
    from transformers.models.janus.processing_janus import JanusProcessor

    words = SimpleNamespace(image_start_token="|", image_end_token="|", image_token="i")
    words.num_image_tokens = 576
    text = JanusProcessor.replace_image_token(words, {}, 0)
    assert text.count("i") == Janus().tokens_of_image(5, 5)
    assert text.count("|") == Janus().markers_of_image(5, 5)


def test_another_number_of_tokens_is_named():
    files = {"processor_config.json": {"num_image_tokens": 256}}
    with pytest.raises(RequestError, match="num_image_tokens 256, but the tower"):
        Janus().of_files({"vision_config": {}}, files, "x")
