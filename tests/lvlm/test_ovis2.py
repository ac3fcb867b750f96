"""Ovis2's visual words: how they are chosen, and what its config.json may say of them."""

import json
from pathlib import Path

import pytest
import torch

from tests.lvlm.generation import write_weights
from tests.lvlm.test_oracles import relative
from tests.lvlm.test_wrappers import TOKEN, shown
from tests.small import small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import tower_of
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported


def state(name, **fields):
    """Set fields of the vision_config of a folder."""
    file = Path(name, "config.json")
    config = json.loads(file.read_text())
    config["vision_config"] |= fields
    file.write_text(json.dumps(config))


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("function", ["softmax", "st_argmax"])
def test_words_are_chosen_as_transformers_does(function, stride, tmp_path):
    """Also the one word of the largest probability, and one to sixteen patches a token."""
    name = small_wrapper("ovis2", tmp_path)
    state(name, tokenize_function=function, hidden_stride=stride)
    model = write_weights(name, seed=5)
    cell, pictures = shown(tmp_path, [(200, 110)], name, weights=name)
    workload = build(cell, pictures=pictures)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    inputs = torch.cat([torch.full((1, cell.num_visual), TOKEN), ids], 1)
    (found,) = workload.run_forward()
    with torch.no_grad():
        expected = model(input_ids=inputs, pixel_values=pixels).logits
    assert relative(found, expected) <= 1e-4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokenize_function": "gumbel_argmax"}, "'gumbel_argmax': softmax or st_argmax"),
        ({"tokenize_function": None}, "tokenize_function"),
        ({"num_visual_indicator_tokens": 61}, "num_visual_indicator_tokens 61: from 0, and few"),
        ({"hidden_stride": 3}, "hidden_stride 3: 4 patches a side are no multiple of 3"),
        ({"hidden_stride": 65}, "hidden_stride 65: a whole number from 1 to 64"),
    ],
)
def test_what_its_tower_does_not_do_is_one_line(fields, message, tmp_path):
    name = small_wrapper("ovis2", tmp_path)
    state(name, **fields)
    with pytest.raises(RequestError, match=message) as refusal:
        tower_of(resolve(name))
    assert "\n" not in str(refusal.value)


def test_features_without_the_table_are_refused_by_name():
    cell = make_cell(model="ovis2-1b", scope="lvlm", num_visual=256, attention="himix")
    with pytest.raises(Unsupported, match=r"^himix keeps .* the tower of ovis2 makes words"):
        build(cell.replace(logits="text"), "meta")
