"""DeepSeek-VL 7B: what of its second tower makes no sense, and its attention in a prediction."""

import json
from pathlib import Path

import pytest
import torch

from tests.lvlm.test_oracles import relative
from tests.small import small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import tower_of
from workbench.lvlm.towers.sam import Modelled
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.facts import model_flags
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported


def written(folder, **changes):
    """A small folder whose second tower has other fields."""
    path = Path(small_wrapper("deepseek_vl_hybrid", folder)) / "config.json"
    config = json.loads(path.read_text())
    config["high_res_vision_config"] |= changes
    path.write_text(json.dumps(config))
    return str(path.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "clip_vision_model"}, "model_type 'clip_vision_model': sam_vision_model"),
        ({"global_attn_indexes": []}, r"global_attn_indexes \[\]: the first is a layer, 0 to 2"),
        ({"global_attn_indexes": [7]}, r"global_attn_indexes \[7\]: the first is a layer"),
        ({"intermediate_size": 48}, "intermediate_size 48: transformers' class builds 40"),
        ({"num_attention_heads": 3}, "hidden_size 32: no multiple of its heads"),
        ({"image_size": 0}, "image_size 0"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, message, tmp_path):
    with pytest.raises(RequestError, match=message) as refusal:
        tower_of(resolve(written(tmp_path, **changes)))
    assert "\n" not in str(refusal.value)


def test_the_fused_attention_of_a_prediction_is_transformers_own(tmp_path):
    """Its rows before the operator and behind it, with that operator's numbers given on CPU."""
    from transformers.models.sam.modeling_sam import SamVisionSdpaAttention

    config = tower_of(resolve(written(tmp_path))).high
    own = SamVisionSdpaAttention(config, 0).double()
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    hidden = torch.randn(2, 5, 5, 32, dtype=torch.float64)
    seen = []

    def attend(query, key, value, bias, needs, scale):
        seen.append(needs)
        scores = (query @ key.transpose(-1, -2)) * scale + bias
        return (torch.softmax(scores, -1) @ value,)

    found, scores = Modelled(own, attend)(hidden)
    assert relative(found, own(hidden)[0]) <= 1e-9
    assert scores is None
    assert seen == [True]


@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_sdpa_holds_no_scores_in_a_prediction(pass_, tmp_path):
    """Of eager it holds them; FLOPs are the same but for what a fused backward computes twice."""
    name = written(tmp_path, image_size=400, global_attn_indexes=[0, 1, 2])
    fields = {"model": name, "scope": "lvlm", "num_visual": 16, "num_text": 4, "pass": pass_}
    eager, fused = (trace(make_cell(**fields, kernel=kernel)) for kernel in ("eager", "sdpa"))
    pairs = 2 * 625**2 * 2  # Heads, pairs of patches, bytes.
    assert eager.timeline.peak()[0] - fused.timeline.peak()[0] > 2 * pairs
    assert fused.model_flops == eager.model_flops
    if pass_ == "forward":
        assert fused.flops == eager.flops


def test_records_say_so_and_one_tower_is_not_enough(tmp_path):
    cell = make_cell(model=written(tmp_path), scope="lvlm", num_visual=16, kernel="sdpa")
    assert any("SAM's attention adds a bias" in flag for flag in model_flags(cell))
    with pytest.raises(Unsupported, match="himix keeps the features of one tower"):
        build(cell.replace(attention="himix", logits="text"), "meta")
