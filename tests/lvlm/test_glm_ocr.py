"""GLM-OCR: what it generates, and what it costs; its tower is among those of test_towers.py."""

import pytest
import torch

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.measured import assert_measured
from tests.lvlm.test_oracles import relative
from tests.small import small_lvlm
from workbench.lvlm.build import build
from workbench.probe.counting.trace import trace
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell


def cell_of(name, **fields):
    own = {"scope": "lvlm", "kernel": "eager", "dtype": "float32", "num_visual": 64}
    return make_cell(model=name, **{**own, "num_text": 3, **fields})


def test_greedy_generation_is_transformers_own(tmp_path):
    name = small_lvlm("glm_ocr", tmp_path)
    model = write_weights(name, dtype=torch.float32, seed=5)
    ids = torch.tensor([[1, 5, 9]])
    workload = build(cell_of(name, weights=name))
    pixels = workload.inputs[0]
    kinds = torch.cat([torch.ones(1, 64), torch.zeros_like(ids)], 1).long()
    given = {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 16, 16]])}
    given["mm_token_type_ids"] = kinds
    asked = torch.cat([torch.full((1, 64), 96), ids], 1)
    with torch.no_grad():
        expected = model(input_ids=asked, **given).logits
        assert relative(workload.module(pixels, ids), expected) <= 1e-4
        wanted = model.generate(input_ids=asked, **given, max_new_tokens=4, **GREEDY)
    ids = extend(ids, 4, lambda num: build(cell_of(name, weights=name, num_text=num)), pixels)
    assert torch.equal(ids[0], wanted[0, 64:])
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)


@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "train", "attention": "d_attn"},
        {"pass": "train", "lora": "r=2", "checkpoint": True},
        {"cache": True},
        {"pass": "decode"},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    name = small_lvlm("glm_ocr", tmp_path, num_hidden_layers=6)
    cell = cell_of(name, num_visual=256, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert_measured(cell, 0.05)


def test_tokens_are_those_of_glm_4_6v(tmp_path):
    name = small_lvlm("glm_ocr", tmp_path)
    found = tokens(name, resolution="1280x720")
    assert found["vision"] == "glm-ocr"
    assert found["num_visual"] == 46 * 26
