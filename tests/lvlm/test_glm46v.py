"""GLM-4.6V's form around GLM-4.1V's parts: parameters, tower and tokens of a folder."""

import json

import torch
from transformers import AutoModelForImageTextToText

from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.towers import own_tower, tower_of
from workbench.probe.counting.trace import trace
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell


def test_a_folder_of_the_other_form_is_served(tmp_path):
    fields = MODELS["glm-4.1v-9b"].stated() | {"model_type": "glm46v"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    model = resolve(str(tmp_path))
    assert own_tower(model) == "glm46v"
    with torch.device("meta"):
        theirs = AutoModelForImageTextToText.from_config(model.whole)
    each = tower_of(model).tokens_each
    cell = make_cell(model=str(tmp_path), scope="lvlm", num_visual=each, kernel="eager")
    assert trace(cell).params == sum(p.numel() for p in theirs.parameters())
    found = tokens(str(tmp_path), resolution="1280x720")
    assert found["vision"] == "glm-4.6v"
    assert found["num_visual"] == 46 * 26
