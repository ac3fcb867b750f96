"""Gemma 4's tokens against its own processors, over a grid of sizes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size

from workbench.visual.gemma_4 import BUDGETS, Gemma4
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError


def theirs(width, height, budget):
    """Tokens by the arithmetic of its image and its video processor alike."""
    high, wide = get_aspect_ratio_preserving_size(height, width, 16, budget * 9, 3)
    return high * wide // 48**2


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(BUDGETS))
def test_tokens_are_its_processors(width, height, budget):
    try:
        wanted = theirs(width, height, budget)
    except ValueError:
        with pytest.raises(RequestError):
            Gemma4(max_tokens=budget).tokens_of_image(width, height)
        return
    assert Gemma4(max_tokens=budget).tokens_of_image(width, height) == wanted
    assert Gemma4(video_max_tokens=budget).tokens_of_step(width, height) == wanted


def test_budgets_of_a_checkpoint(tmp_path):
    config = {"model_type": "gemma4", "vision_config": {"model_type": "gemma4_vision"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    files = {"image_processor": {"max_soft_tokens": 1120}, "video_processor": {}}
    (tmp_path / "processor_config.json").write_text(json.dumps(files))
    found = Gemma4().of_files(config, {"processor_config.json": files}, "x")
    assert (found.max_tokens, found.video_max_tokens) == (1120, 70)
    wrong = {"preprocessor_config.json": {"max_soft_tokens": 281}}
    with pytest.raises(RequestError, match="max_soft_tokens 281: one of 70, 140, 280, 560, 1120"):
        Gemma4().of_files(config, wrong, "x")


def test_a_video_is_so_many_frames():
    found = tokens("gemma-4-31b", resolution="1280x720", frames=32)
    assert (found["vision"], found["num_visual"]) == ("gemma-4", 32 * theirs(1280, 720, 70))
