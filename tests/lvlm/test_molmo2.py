"""Molmo 2's decoder: transformers' own results and parameters, and what of it is refused."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.lvlm.published import TOWERLESS
from tests.lvlm.test_oracles import relative
from tests.small import OWN, SHARED, small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.facts import model_flags
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "image_size": [28, 28],
}
ADAPTER = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "text_hidden_size": 32,
    "vision_feature_layer": [1, 0],
}


def written(folder, **text):
    """A small folder of the whole model, its text model with other fields."""
    whole = AutoConfig.for_model(
        "molmo2",
        text_config={**SHARED, **OWN["molmo2"], **text},
        vision_config=TOWER,
        adapter_config=ADAPTER,
    )
    path = Path(folder) / "molmo2"
    whole.save_pretrained(path)
    return str(path)


def cell_of(name, **fields):
    own = {"scope": "decoder", "kernel": "eager", "dtype": "float64", "num_visual": 0}
    return make_cell(**{"model": name, "num_text": 6, **own, **fields})


def test_greedy_generation_of_its_decoder_is_transformers_own(tmp_path):
    """Of text alone, with ids of the rows that no head predicts."""
    name = written(tmp_path)
    torch.manual_seed(5)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(name)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(name)
    ids = torch.tensor([[5, 102, 9, 97, 3, 40]])
    module = build(cell_of(name, weights=name)).module
    with torch.no_grad():
        found = module(None, ids)
        assert relative(found, model(input_ids=ids).logits) <= 1e-4
        wanted = model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None)
        for step in range(3):
            ids = torch.cat([ids, found[:, -1:].argmax(-1)], 1)
            found = build(cell_of(name, weights=name, num_text=7 + step)).module(None, ids)
    assert torch.equal(ids, wanted)


def test_parameters_are_those_of_transformers_decoder(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(TOWERLESS["allenai/Molmo2-8B"]["config.json"])
    )
    model = resolve(str(tmp_path))
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    theirs = [*whole.model.language_model.parameters(), whole.lm_head.weight]
    cell = cell_of(str(tmp_path), dtype="bfloat16", num_visual=64)
    assert trace(cell).params == sum(p.numel() for p in theirs)
    assert any(flag.startswith("attention: causal; in the rel") for flag in model_flags(cell))


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_full", "himix"])
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_closed_form_is_the_count(system, pass_, tmp_path):
    logits = {"logits": "text"} if system == "himix" else {}
    fields = {"attention": system, "dtype": "float32", "num_visual": 32, "pass": pass_, **logits}
    found = trace(cell_of(small_model("molmo2", tmp_path), **fields))
    assert found.flops == found.model_flops


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"qk_norm_type": "olmo"}, "qk_norm_type 'olmo': queries and keys normed over all heads"),
        ({"norm_after": True}, "norm_after True: norms behind attention and MLP alone"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings True: a head of as many rows"),
        (
            {
                "rope_scaling_layers": [0],
                "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
            },
            r"rope_scaling_layers \[0\]: all layers",
        ),
    ],
)
def test_what_of_its_decoder_is_refused_is_one_line(fields, message, tmp_path):
    with pytest.raises(RequestError, match=message) as refusal:
        resolve(small_model("molmo2", tmp_path, **fields))
    assert "\n" not in str(refusal.value)


def test_its_tower_is_refused_with_the_reason(tmp_path):
    model = resolve(written(tmp_path))
    with pytest.raises(RequestError, match="its features are added to the embedding") as refusal:
        tower_of(model)
    assert "\n" not in str(refusal.value)
