"""GLM-4.6V's form around GLM-4.1V's parts: parameters, tower and tokens of a folder."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.small import small_lvlm
from workbench.lvlm.build import build
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


@pytest.mark.parametrize("family", ["glm4v", "glm4v_moe"])
def test_a_tower_under_the_outer_type_is_loaded(family, tmp_path):
    """As the first checkpoints have it in their vision_config."""
    name = small_lvlm(family, tmp_path)
    torch.manual_seed(2)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(name)).float()
    model.save_pretrained(name)
    file = Path(name) / "config.json"
    fields = json.loads(file.read_text())
    fields["vision_config"]["model_type"] = family
    file.write_text(json.dumps(fields))
    cell = make_cell(
        model=name, weights=name, scope="lvlm", num_visual=64, kernel="eager", dtype="float32"
    )
    workload = build(cell)
    assert not any(flag.startswith("weights: random") for flag in workload.context.flags)
    found = workload.modules["adapter"].downsample.weight
    assert torch.equal(found, model.model.visual.downsample.weight)
