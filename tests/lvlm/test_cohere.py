"""Command R and its kin: the scale of logits, what has no place in a layer, what it costs."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from tests.lvlm.generation import GREEDY, extend, write_random
from tests.lvlm.measured import assert_measured
from tests.lvlm.test_oracles import relative
from tests.small import small_model, small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported


def cell_of(name, **fields):
    own = {"scope": "decoder", "kernel": "eager", "dtype": "float32", "num_visual": 33}
    return make_cell(model=name, **{**own, "num_text": 9, **fields})


@pytest.mark.parametrize("family", ["cohere", "cohere2"])
def test_greedy_generation_of_the_text_model_is_transformers_own(family, tmp_path):
    """The sequence is longer than the window; logits are scaled as its own class does it."""
    name = small_model(family, tmp_path)
    model = write_random(name, lambda: AutoModelForCausalLM.from_config(resolve(name).config))
    ids = torch.randint(90, (1, 21))
    cell = cell_of(name, weights=name, num_visual=0, num_text=21, dtype="float64")
    workload = build(cell)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        wanted = model.generate(input_ids=ids, max_new_tokens=3, **GREEDY)
        assert relative(workload.module(workload.inputs[0], ids), expected) <= 1e-5
    ids = extend(ids, 3, lambda num: build(cell.replace(num_text=num)), workload.inputs[0])
    assert torch.equal(ids, wanted)
    assert not any(flag.startswith("logit_scale") for flag in predict(cell, "cpu").flags)


@pytest.mark.parametrize("name", ["command-r", "command-r7b", "command-a"])
def test_parameters_of_the_text_models_are_transformers_own(name):
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(resolve(name).config)
    found = trace(cell_of(name, dtype="bfloat16", num_visual=6000))
    assert found.params == sum(p.numel() for p in whole.parameters())
    assert found.flops == found.model_flops


@pytest.mark.parametrize("kind", ["aya_vision", "cohere2_vision"])
def test_a_wrapper_that_does_not_scale_logits_says_so(kind, tmp_path):
    """transformers' classes around the text model have the head's output as it is."""
    name = small_wrapper(kind, tmp_path)
    flag = "logit_scale 0.5: its text model's own class multiplies logits with it, transformers' "
    flag += f"class of {kind} does not, and so does nothing here"
    for scope, visual in (("decoder", 9), ("lvlm", tower_of(resolve(name)).tokens_each)):
        assert flag in predict(cell_of(name, scope=scope, num_visual=visual), "cpu").flags


def test_a_scale_of_none_is_refused(tmp_path):
    name = small_model("cohere", tmp_path)
    file = Path(name, "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"logit_scale": None}))
    with pytest.raises(RequestError, match="logit_scale None: a number above 0") as refusal:
        resolve(name)
    assert "\n" not in str(refusal.value)


def test_aya_vision_around_the_older_decoder(tmp_path):
    """A folder whose text model is Command R's own: parameters are transformers' too."""
    file = Path(small_wrapper("aya_vision", tmp_path), "config.json")
    fields = json.loads(file.read_text())
    text = json.loads(Path(small_model("cohere", tmp_path), "config.json").read_text())
    file.write_text(json.dumps(fields | {"text_config": text}))
    model = resolve(str(file.parent))
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(model.whole)
    found = trace(cell_of(model.name, scope="lvlm", num_visual=tower_of(model).tokens_each))
    assert found.params == sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize("system", ["gated_xattn", "cross_lmm"])
@pytest.mark.parametrize("name", ["command-r", "command-r7b"])
def test_what_stands_between_attention_and_mlp_is_refused_by_name(system, name):
    with pytest.raises(Unsupported, match=f"^{system}: attention and MLP of cohere2? read the"):
        build(cell_of(name, attention=system), "meta")


@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "train"},
        {"pass": "train", "checkpoint": True},
        {"pass": "train", "lora": "r=2"},
        {"pass": "train", "tiled": True, "loss_rows": "all"},
        {"cache": True},
        {"pass": "decode"},
        {"attention": "d_attn", "pass": "train"},
        {"attention": "d_attn", "cache": True},
        {"attention": "lightning", "settings": "block=5"},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    name = small_model("cohere2", tmp_path, num_hidden_layers=8, hidden_size=64)
    if fields.get("attention") == "lightning":
        name = small_model("cohere", tmp_path, num_hidden_layers=8, use_qk_norm=False)
    cell = cell_of(name, num_visual=100, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert_measured(cell, 0.02)
