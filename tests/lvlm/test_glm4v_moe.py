"""GLM-4.5V: transformers' own results, experts beside a shared one, a router with a bias."""

import json
from pathlib import Path

import pytest
import torch

from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.oracle import widen_norms
from tests.lvlm.test_oracles import relative
from tests.small import small_lvlm, small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

FAMILY = "glm4v_moe"


def cell_of(name, **fields):
    own = {"kernel": "eager", "dtype": "float32", "num_visual": 64, "num_text": 5, **fields}
    return make_cell(**{"model": name, "scope": "decoder", **own})


@pytest.fixture
def checkpoint(tmp_path):
    """A whole small model, whose router has a bias, and transformers' own of it."""
    name = small_lvlm(FAMILY, tmp_path)
    return name, write_weights(name, dtype=torch.float32, buffers=("correction_bias",))


def test_greedy_generation_is_transformers_own(checkpoint):
    name, model = checkpoint
    ids = torch.tensor([[1, 5, 9]])
    fields = {"weights": name, "scope": "lvlm"}
    workload = build(cell_of(name, num_text=3, **fields))
    pixels = workload.inputs[0]
    inputs = torch.cat([torch.full((1, 64), 96), ids], 1)
    extra = {
        "pixel_values": pixels,
        "image_grid_thw": torch.tensor([[1, 16, 16]]),
        "mm_token_type_ids": (inputs == 96).long(),
    }
    with torch.no_grad():
        logits = model(input_ids=inputs, **extra).logits
        wanted = model.generate(input_ids=inputs, **extra, max_new_tokens=4, **GREEDY)
        assert relative(workload.module(pixels, ids), logits) <= 1e-4
    ids = extend(ids, 4, lambda num: build(cell_of(name, num_text=num, **fields)), pixels)
    assert torch.equal(ids[0], wanted[0, 64:])


def test_the_router_s_bias_is_the_checkpoint_s(checkpoint):
    name, model = checkpoint
    theirs = model.model.language_model.layers[1].mlp.gate.e_score_correction_bias
    gate = build(cell_of(name, weights=name)).layers[1][0].mlp.gate
    assert torch.equal(gate.e_score_correction_bias, theirs)
    plain = build(cell_of(name, dtype="bfloat16")).layers[1][0].mlp.gate
    assert plain.e_score_correction_bias.dtype == torch.float32
    assert not plain.e_score_correction_bias.any()


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_full"])
@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
def test_closed_form_is_the_count(system, pass_, tmp_path):
    found = trace(cell_of(small_model(FAMILY, tmp_path), attention=system, **{"pass": pass_}))
    assert found.flops == found.model_flops
    matrices = 3 * 32 * 16  # Of an expert; the second of two layers has experts.
    assert found.params - found.active_params == (8 - 2) * matrices


def test_d_attn_full_equals_s_attn(tmp_path):
    name = small_model(FAMILY, tmp_path)
    fields = {"pass": "train", "kernel": "sdpa", "layout": "T,V,T"}
    one, other = (build(cell_of(name, attention=a, **fields)) for a in ("s_attn", "d_attn_full"))
    other.module.load_state_dict(one.module.state_dict())
    for a, b in zip(one.inputs, other.inputs, strict=True):
        b.data.copy_(a.data)
    for workload in (one, other):
        widen_norms(workload.module)
        workload.run_backward(workload.run_forward())
    assert relative(other.inputs[0].grad, one.inputs[0].grad) <= 1e-4


def test_predicted_is_measured(tmp_path):
    fields = {"scope": "lvlm", "attention": "d_attn", "pass": "train"}
    cell = cell_of(small_lvlm(FAMILY, tmp_path), **fields)
    predicted = predict(cell, "cpu")
    measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    assert measured.status == predicted.status == Status.OK
    for metric in ("flops", "params", "active_params"):
        assert measured.metrics[metric] == predicted.metrics[metric]
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.05)  # oneDNN reorders what the tower convolves.
    wanted = "experts: FLOPs are of the 2 of 8 that a token meets"
    assert any(flag.startswith(wanted) for flag in predicted.flags)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_experts_per_tok": 9}, "num_experts_per_tok 9: at most n_routed_experts 8"),
        ({"n_group": 3}, "n_group 3, topk_group 1: n_routed_experts 8 is to be in groups of two"),
        ({"topk_group": 2}, "n_group 1, topk_group 2: n_routed_experts 8 is to be in groups"),
        ({"n_group": 4, "num_experts_per_tok": 3}, "topk_group 1: num_experts_per_tok 3"),
        ({"n_routed_experts": -8}, "n_routed_experts -8: a whole number from 1"),
    ],
)
def test_experts_that_cannot_be_are_one_line(fields, message, tmp_path):
    file = Path(small_model(FAMILY, tmp_path)) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    with pytest.raises(RequestError, match=message):
        resolve(str(file.parent))
