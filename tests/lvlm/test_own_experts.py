"""D-Attn and its kin on ERNIE 4.5 VL: each stream meets the experts of its kind.

The first layer has one MLP, and is held in float64; experts compute in float32 at most.
"""

import pytest
import torch

from tests.lvlm import oracle
from tests.lvlm.measured import assert_measured
from tests.lvlm.test_decode import fill, pair
from tests.lvlm.test_kinds import assert_composed
from tests.lvlm.test_oracles import (
    LAYOUTS,
    TOLERANCE,
    assert_equal_to_oracle,
    relative,
    small_workload,
)
from tests.small import small_lvlm, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell

FAMILY = "ernie4_5_vl_moe"
DECOMPOSED = tuple(name for name in sorted(SYSTEMS) if name.startswith("d_attn"))
CHUNKED = tuple(name for name in DECOMPOSED if "chunk" in SYSTEMS[name].options)
IN_FLOAT32 = {"layer": 1, "dtype": "float32"}
TRAIN = {"pass": "train"}
EXACT = ("flops", "params", "active_params")
"""Metrics that are predicted to the last digit."""


def cell_of(name, attention="d_attn", **fields):
    own = {"scope": "decoder", "kernel": "eager", "dtype": "float32", "num_visual": 64}
    return make_cell(model=name, attention=attention, **{**own, "num_text": 5, **fields})


def deep(folder, **fields):
    kinds = {"num_hidden_layers": 8, "mlp_layer_types": ["dense", *["sparse"] * 7]}
    return small_model(FAMILY, folder, **kinds, **fields)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("system", DECOMPOSED)
def test_a_layer_without_experts_is_its_definition(system, layout, kernel, tmp_path):
    workload = small_workload(FAMILY, tmp_path, system, kernel, layer=0, layout=layout)
    assert_equal_to_oracle(workload, TOLERANCE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("system", DECOMPOSED)
def test_a_layer_with_experts_is_its_definition(system, layout, tmp_path):
    """The oracle runs the visual rows' experts one by one on all rows."""
    workload = small_workload(FAMILY, tmp_path, system, "eager", layout=layout, **IN_FLOAT32)
    assert_equal_to_oracle(workload, 2e-5)


@pytest.mark.parametrize(("visual", "text"), [(0, 5), (5, 1), (1, 4)])
@pytest.mark.parametrize("system", DECOMPOSED)
def test_odd_lengths(system, visual, text, tmp_path):
    fields = {"num_visual": visual, "num_text": text, "layout": "T,V,T", **IN_FLOAT32}
    assert_equal_to_oracle(small_workload(FAMILY, tmp_path, system, "eager", **fields), 2e-5)


@pytest.mark.parametrize("options", [{"fold": True}, {"chunk": 7}, {"checkpoint": True}])
@pytest.mark.parametrize("system", CHUNKED)
def test_options_are_exact(system, options, tmp_path):
    for fields, tolerance in (({"layer": 0}, TOLERANCE), (IN_FLOAT32, 2e-5)):
        workload = small_workload(FAMILY, tmp_path, system, "eager", **fields, **options)
        assert_equal_to_oracle(workload, tolerance)


def test_every_row_meets_the_experts_of_its_kind(tmp_path):
    """Experts of the other kind that are spoilt change nothing of a stream."""
    workload = small_workload(FAMILY, tmp_path, "d_attn", "eager", **IN_FLOAT32)
    block = workload.layers[0][0].mlp
    with torch.no_grad():
        before = [x.clone() for x in workload.run_forward()]
        for number, spoilt in enumerate((block.text_moe, block.vision_moe)):
            kept = [w.clone() for w in spoilt.experts.parameters()]
            for w in spoilt.experts.parameters():
                w.mul_(3)
            after = workload.run_forward()
            assert torch.equal(after[number], before[number])
            assert relative(after[1 - number], before[1 - number]) > 1e-3
            for w, old in zip(spoilt.experts.parameters(), kept, strict=True):
                w.copy_(old)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_d_attn_full_equals_s_attn(layout, tmp_path):
    name = small_lvlm(FAMILY, tmp_path)
    fields = {"kernel": "sdpa", "layout": layout, **TRAIN}
    one, other = (cell_of(name, system, **fields) for system in ("s_attn", "d_attn_full"))
    one, other = build(one), build(other)
    other.module.load_state_dict(one.module.state_dict())
    for a, b in zip(one.inputs, other.inputs, strict=True):
        b.data.copy_(a.data)
    for workload in (one, other):
        oracle.widen_norms(workload.module)
        workload.run_backward(workload.run_forward())
    assert relative(other.inputs[0].grad, one.inputs[0].grad) <= 1e-4


@pytest.mark.parametrize("system", DECOMPOSED)
@pytest.mark.parametrize(
    ("scope", "layer", "tolerance"), [("layer", 0, 1e-9), ("layer", 1, 2e-5), ("decoder", 0, 2e-5)]
)
def test_a_step_is_the_last_row_of_a_prefill(system, scope, layer, tolerance, tmp_path):
    """Its token is of text, and meets the experts of text."""
    dtype = "float64" if tolerance < 1e-6 else "float32"
    fields = {"scope": scope, "dtype": dtype, "layout": "T,V,T"}
    fields |= {"layer": layer} if scope == "layer" else {}
    prefilled, decoded = pair(FAMILY, tmp_path, system, "eager", **fields)
    with torch.no_grad():
        outputs = fill(decoded, prefilled, prefilled.run_forward)
        decoded.inputs[0].copy_(prefilled.inputs[-1][:, -1:])
        (found,) = decoded.run_forward()
    assert relative(found, outputs[-1][:, -1:]) <= tolerance


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
@pytest.mark.parametrize("scope", ["layer", "decoder", "lvlm"])
@pytest.mark.parametrize("system", DECOMPOSED)
def test_closed_forms_are_the_counts(system, scope, pass_, tmp_path):
    cell = cell_of(
        small_lvlm(FAMILY, tmp_path),
        system,
        scope=scope,
        batch=2,
        layout="T,V,T",
        **{"pass": pass_},
    )
    found = trace(cell)
    assert found.flops == found.model_flops


@pytest.mark.parametrize(
    "fields", [{}, {"chunk": 16}, {"fold": True}, {"skip_last": True, "logits": "text"}]
)
def test_a_visual_row_costs_what_its_experts_do(fields, tmp_path):
    """Experts of visual rows that are wider by eight cost three matrices of eight, twice a row."""
    first, second = (
        trace(cell_of(small_model(FAMILY, tmp_path, moe_intermediate_size=[16, wide]), **fields))
        for wide in (8, 16)
    )
    assert first.flops == first.model_flops
    layers = 2 - ("skip_last" in fields)
    assert second.flops - first.flops == 2 * 64 * layers * 2 * 3 * 32 * 8
    steps = [
        trace(cell_of(small_model(FAMILY, tmp_path, moe_intermediate_size=[16, wide]), **step))
        for wide in (8, 16)
        for step in ({"pass": "decode"},)
    ]
    assert steps[0].flops == steps[1].flops == steps[0].model_flops


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
@pytest.mark.parametrize("system", DECOMPOSED)
def test_composed_is_traced_whole(system, pass_, tmp_path):
    whole = assert_composed(cell_of(deep(tmp_path), system, layout="T,V,T", **{"pass": pass_}))
    assert whole.flops == whole.model_flops


@pytest.mark.parametrize("system", DECOMPOSED)
@pytest.mark.parametrize("fields", [TRAIN, {**TRAIN, "checkpoint": True}, {"pass": "decode"}])
def test_predicted_is_measured(system, fields, tmp_path):
    assert_measured(
        cell_of(deep(tmp_path), system, num_visual=256, num_text=9, **fields), 0.05, EXACT
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"cache": True},
        {**TRAIN, "lora": "r=2"},
        {**TRAIN, "chunk": 32, "fold": True},
        {**TRAIN, "scope": "lvlm"},
    ],
)
def test_other_forms_of_d_attn_are_predicted(fields, tmp_path):
    kinds = {"num_hidden_layers": 4, "mlp_layer_types": ["dense", *["sparse"] * 3]}
    name = small_lvlm(FAMILY, tmp_path, **kinds)
    assert_measured(cell_of(name, num_visual=256, num_text=9, **fields), 0.05, EXACT)
