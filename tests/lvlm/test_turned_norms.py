"""D-Attn and its kin on HunyuanOCR, whose queries and keys are normed once they are turned."""

import pytest
import torch

from tests.lvlm import oracle
from tests.lvlm.generation import write_weights
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
from tests.small import small_model, small_wrapper
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell

FAMILY = "hunyuan_vl"
DECOMPOSED = tuple(name for name in sorted(SYSTEMS) if name.startswith("d_attn"))
CHUNKED = tuple(name for name in DECOMPOSED if "chunk" in SYSTEMS[name].options)
TRAIN = {"pass": "train"}


def cell_of(name, attention="d_attn", **fields):
    own = {"scope": "decoder", "kernel": "eager", "dtype": "float32", "num_visual": 33}
    return make_cell(model=name, attention=attention, **{**own, "num_text": 9, **fields})


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("system", DECOMPOSED)
def test_every_system_is_its_definition(system, layout, kernel, tmp_path):
    workload = small_workload(FAMILY, tmp_path, system, kernel, layout=layout)
    assert_equal_to_oracle(workload, TOLERANCE)


@pytest.mark.parametrize(("visual", "text"), [(0, 5), (5, 1), (1, 4)])
@pytest.mark.parametrize("system", DECOMPOSED)
def test_odd_lengths(system, visual, text, tmp_path):
    fields = {"num_visual": visual, "num_text": text, "layout": "T,V,T"}
    assert_equal_to_oracle(small_workload(FAMILY, tmp_path, system, "eager", **fields), TOLERANCE)


@pytest.mark.parametrize("options", [{"fold": True}, {"chunk": 7}, {"checkpoint": True}])
@pytest.mark.parametrize("system", CHUNKED)
def test_options_are_exact(system, options, tmp_path):
    workload = small_workload(FAMILY, tmp_path, system, "eager", **options)
    assert_equal_to_oracle(workload, TOLERANCE)


def test_what_text_reads_is_normed_and_not_turned(tmp_path):
    """As the layer's own queries and keys are at the place 0, where RoPE does nothing."""
    workload = small_workload(FAMILY, tmp_path, "d_attn", "eager")
    (parts, _, _), *_ = workload.layers
    x = parts.input_norm(workload.inputs[0])
    query, key = parts.query(x), parts.key(x)
    ones, nothing = torch.ones(1, 33, 16).double(), torch.zeros(1, 33, 16).double()
    for raw, unturned, turn, norm in (
        (query, parts.unturned_query(query), parts.turn_query, parts.attention.query_layernorm),
        (key, parts.unturned_key(key), parts.turn_key, parts.attention.key_layernorm),
    ):
        assert relative(turn(raw, ones, nothing), unturned) <= TOLERANCE
        assert relative(norm(raw), unturned) <= TOLERANCE
        # A norm that came first would be another one.
        cos, sin = workload.context.rope(0, "visual")
        assert relative(parts.rope(unturned, cos, sin), turn(raw, cos, sin)) > 1e-3


@pytest.mark.parametrize("text", [5, 9])
def test_d_attn_full_is_s_attn_under_the_positions_of_an_image(text, tmp_path):
    """At scope lvlm, where an image's tokens are turned by column, row and number (XD-RoPE)."""
    name = small_wrapper(FAMILY, tmp_path)
    write_weights(name)
    count = 2 * tower_of(resolve(name)).tokens_each
    fields = {"scope": "lvlm", "weights": name, "dtype": "float64", "kernel": "sdpa"}
    one, other = (
        build(cell_of(name, system, num_visual=count, num_text=text, **fields))
        for system in ("s_attn", "d_attn_full")
    )
    positions = other.context.positions
    assert positions.ndim == 2
    assert not torch.equal(positions[0], positions[1])
    for workload in (one, other):
        oracle.widen_norms(workload.module)
    with torch.no_grad():
        wanted = one.module(*one.inputs[:2])
        assert relative(other.module(*one.inputs[:2]), wanted) <= TOLERANCE
        debiased = build(cell_of(name, num_visual=count, num_text=text, **fields))
        oracle.widen_norms(debiased.module)
        assert relative(debiased.module(*one.inputs[:2]), wanted) > 1e-6


@pytest.mark.parametrize("system", DECOMPOSED)
@pytest.mark.parametrize("scope", ["layer", "decoder"])
@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
def test_a_step_is_the_last_row_of_a_prefill(system, scope, layout, tmp_path):
    prefilled, decoded = pair(FAMILY, tmp_path, system, "eager", scope=scope, layout=layout)
    with torch.no_grad():
        outputs = fill(decoded, prefilled, prefilled.run_forward)
        decoded.inputs[0].copy_(prefilled.inputs[-1][:, -1:])
        (found,) = decoded.run_forward()
    assert relative(found, outputs[-1][:, -1:]) <= TOLERANCE


@pytest.mark.parametrize("system", CHUNKED)
@pytest.mark.parametrize("chunk", [None, 8])
def test_what_a_prefill_keeps_is_what_a_step_reads(system, chunk, tmp_path):
    """The cache itself, not what the kernel was given, in the places of a decode step's."""
    name = small_model(FAMILY, tmp_path)
    fields = {"num_text": 8, "dtype": "float64"}
    whole = build(cell_of(name, system, **{**fields, "num_text": 9}))
    prefill = build(cell_of(name, system, cache=True, chunk=chunk, **fields))
    step = build(cell_of(name, system, **fields, pass_="decode"))
    for workload in (prefill, step):
        workload.module.load_state_dict(whole.module.state_dict())
    for workload in (whole, prefill, step):
        oracle.widen_norms(workload.module)
    text = whole.inputs[1]
    with torch.no_grad():
        rows = whole.run_forward()[0][:, -1:]
        prefill.inputs[0].copy_(whole.inputs[0])
        prefill.inputs[1].copy_(text[:, :8])
        prefill.run_forward()
        for layer, cache in zip(step.module.layers, prefill.context.caches, strict=True):
            for number, tensor in enumerate(cache.tensors):
                stream = {33: "visual", 8: "text"}[tensor.shape[2]]
                getattr(layer, f"{stream}_{('keys', 'values')[number % 2]}").copy_(tensor)
        step.inputs[0].copy_(text[:, 8:])
        (found,) = step.run_forward()
    assert relative(found, rows) <= TOLERANCE


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
@pytest.mark.parametrize("system", DECOMPOSED)
def test_composed_is_traced_whole(system, pass_, tmp_path):
    name = small_model(FAMILY, tmp_path, num_hidden_layers=8)
    whole = assert_composed(cell_of(name, system, layout="T,V,T", **{"pass": pass_}))
    assert whole.flops == whole.model_flops


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
@pytest.mark.parametrize("scope", ["layer", "lvlm"])
@pytest.mark.parametrize("system", DECOMPOSED)
def test_closed_forms_are_the_counts(system, scope, pass_, tmp_path):
    name = small_wrapper(FAMILY, tmp_path)
    count = 2 * tower_of(resolve(name)).tokens_each
    found = trace(cell_of(name, system, scope=scope, num_visual=count, **{"pass": pass_}))
    assert found.flops == found.model_flops


@pytest.mark.parametrize("fields", [TRAIN, {**TRAIN, "checkpoint": True}, {"pass": "decode"}])
@pytest.mark.parametrize("system", DECOMPOSED)
def test_predicted_is_measured(system, fields, tmp_path):
    name = small_model(FAMILY, tmp_path, num_hidden_layers=8)
    assert_measured(cell_of(name, system, num_visual=150, **fields), 0.02)


@pytest.mark.parametrize(
    "fields",
    [{"cache": True}, {**TRAIN, "lora": "r=2"}, {**TRAIN, "chunk": 32, "fold": True}],
)
def test_other_forms_of_d_attn_are_predicted(fields, tmp_path):
    name = small_model(FAMILY, tmp_path, num_hidden_layers=8)
    assert_measured(cell_of(name, num_visual=150, **fields), 0.02)
