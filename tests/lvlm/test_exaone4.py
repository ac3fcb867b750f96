"""EXAONE 4: its order of norms, layers without positions, what it costs; and its older files."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from tests.lvlm.generation import GREEDY, extend, write_random
from tests.lvlm.measured import assert_measured
from tests.lvlm.test_oracles import relative
from tests.small import small_model, small_wrapper
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.visual.tokens import tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError


def cell_of(name, **fields):
    own = {"scope": "decoder", "kernel": "eager", "dtype": "float32", "num_visual": 33}
    return make_cell(model=name, **{**own, "num_text": 9, **fields})


@pytest.mark.parametrize("window", [16, None])
def test_greedy_generation_of_the_text_model_is_transformers_own(window, tmp_path):
    """The sequence is longer than the window; without windows every layer has positions."""
    kinds = {"layer_types": ["full_attention"] * 2} if window is None else {}
    name = small_model("exaone4", tmp_path, sliding_window=window, **kinds)
    model = write_random(name, lambda: AutoModelForCausalLM.from_config(resolve(name).config))
    model.config.use_cache = False
    ids = torch.randint(90, (1, 21))
    cell = cell_of(name, weights=name, num_visual=0, num_text=21, dtype="float64")
    workload = build(cell)
    with torch.no_grad():
        expected = model.lm_head(model.model(input_ids=ids).last_hidden_state)
        wanted = model.generate(input_ids=ids, max_new_tokens=3, **GREEDY)
        assert relative(workload.module(workload.inputs[0], ids), expected) <= 1e-5
    ids = extend(ids, 3, lambda num: build(cell.replace(num_text=num)), workload.inputs[0])
    assert torch.equal(ids, wanted)


@pytest.mark.parametrize("name", ["exaone-4.0-1.2b", "exaone-4.0-32b", "exaone-4.5-33b"])
def test_parameters_of_the_text_models_are_transformers_own(name):
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(resolve(name).config)
    found = trace(cell_of(name, dtype="bfloat16", num_visual=6000))
    assert found.params == sum(p.numel() for p in whole.parameters())
    assert found.flops == found.model_flops


def test_what_a_layer_of_each_kind_is():
    """Three local layers turn queries and keys within their window, the fourth turns nothing."""
    model = resolve("exaone-4.5-33b")
    with torch.device("meta"):
        local, whole = (model.family.parts(model.family.layer(model.config, i)) for i in (2, 3))
    assert [part.window for part in (local, whole)] == [4096, None]
    assert model.global_layer == 3
    x, table = torch.randn(1, 2, 3, 8), torch.full((1, 3, 8), 0.5)
    assert torch.equal(whole.rope(x, table, table), x)
    assert not torch.equal(local.rope(x, table, table), x)
    assert isinstance(local.input_norm, nn.Identity)
    assert isinstance(local.mlp_norm, nn.Identity)


def test_the_older_word_for_its_text_model_and_its_pattern(tmp_path):
    """As published first: ``exaone4_5_text`` and a pattern in letters beside the layers' kinds."""
    file = Path(small_wrapper("exaone4_5", tmp_path), "config.json")
    stated = json.loads(file.read_text())
    stated["text_config"] |= {"model_type": "exaone4_5_text", "sliding_window_pattern": "LG"}
    file.write_text(json.dumps(stated))
    model = resolve(str(file.parent))
    assert model.config.model_type == "exaone4"
    assert tower_of(model).front_end == "exaone-4.5"
    stated["text_config"]["sliding_window_pattern"] = "LX"
    file.write_text(json.dumps(stated))
    with pytest.raises(RequestError, match="sliding_window_pattern 'LX': a whole number from 1"):
        resolve(str(file.parent))


def test_images_are_counted_as_its_processor_does():
    """2 × 2 patches of 14 pixels a token, up to 1,280; positions count tokens."""
    assert tokens("exaone-4.5-33b", resolution="448x448")["num_visual"] == 256
    assert tokens("exaone-4.5-33b", resolution="2800x2800")["num_visual"] == 35 * 35
    assert tokens("exaone-4.5-33b", resolution="448x448", frames=4)["num_visual"] == 2 * 256
    tower = tower_of(resolve("exaone-4.5-33b"))
    assert not tower.has_positions
    assert tower.config.num_key_value_heads == 8


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_costs_of_grouped_heads_in_the_tower(kernel, tmp_path):
    name = small_wrapper(
        "exaone4_5", tmp_path, sliding_window=None, layer_types=["full_attention"] * 2
    )
    cell = cell_of(name, scope="lvlm", kernel=kernel, num_visual=256, batch=2)
    found = trace(cell)
    assert found.flops == found.model_flops


@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "train"},
        {"pass": "train", "checkpoint": True, "lora": "r=2"},
        {"cache": True},
        {"pass": "decode"},
        {"attention": "d_attn", "pass": "train", "fold": True},
        {"attention": "d_attn", "pass": "train", "chunk": 16},
        {"attention": "d_attn_cascade", "pass": "train"},
    ],
)
def test_predicted_is_measured(fields, tmp_path):
    name = small_model("exaone4", tmp_path, num_hidden_layers=8, hidden_size=64)
    cell = cell_of(name, num_visual=100, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert_measured(cell, 0.02)
