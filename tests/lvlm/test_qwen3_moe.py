"""Qwen3 with experts, the text model of InternVL3.5's largest: transformers' own results."""

import pytest
import torch

from tests.lvlm.generation import write_random
from tests.lvlm.test_oracles import relative
from tests.small import OWN, SHARED, WRAPPERS, small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import FAMILIES, resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell


def cell_of(name, **fields):
    return make_cell(
        model=name,
        scope="decoder",
        kernel="eager",
        dtype="float32",
        num_visual=12,
        num_text=5,
        **fields,
    )


def test_loaded_weights_compute_what_transformers_does(tmp_path):
    name = small_model("qwen3_moe", tmp_path)
    resolved = resolve(name)
    model = write_random(
        name, lambda: resolved.family.causal_lm()(resolved.config), dtype=torch.float32
    )
    workload = build(cell_of(name, weights=name))
    visual, ids = workload.inputs
    (found,) = workload.run_forward()
    with torch.no_grad():
        grown, own = ids, torch.cat([visual, model.model.embed_tokens(ids)], 1)
        assert relative(found, model(inputs_embeds=own).logits) <= 1e-4
        for _ in range(4):
            word = model(inputs_embeds=own).logits[:, -1:].argmax(-1)
            own = torch.cat([own, model.model.embed_tokens(word)], 1)
            module = build(cell_of(name, weights=name).replace(num_text=grown.shape[1])).module
            grown = torch.cat([grown, module(visual, grown)[:, -1:].argmax(-1)], 1)
            assert torch.equal(grown[:, -1:], word)


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_full"])
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_closed_form_is_the_count(system, pass_, tmp_path):
    found = trace(cell_of(small_model("qwen3_moe", tmp_path), attention=system, **{"pass": pass_}))
    assert found.flops == found.model_flops
    assert found.active_params < found.params


def test_under_internvl_s_tower(tmp_path):
    """The wrapper takes it as any other text model."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    _, around = WRAPPERS["internvl"]
    text = FAMILIES["qwen3_moe"].config({**SHARED, **OWN["qwen3_moe"]}).to_dict()
    whole = AutoConfig.for_model("internvl", **around, text_config=text)
    whole.save_pretrained(tmp_path)
    name = str(tmp_path)
    assert tower_of(resolve(name)).front_end == "internvl"
    cell = cell_of(name).replace(scope="lvlm", num_visual=8)
    found = trace(cell)
    with torch.device("meta"):
        theirs = AutoModelForImageTextToText.from_config(resolve(name).whole)
    assert found.params == sum(p.numel() for p in theirs.parameters())
    assert found.flops == found.model_flops
