"""Experts: active FLOPs, all bytes, one routing whatever the data; transformers' own results."""

import json

import pytest
import torch

from tests.fake_tensors import fake_tensors
from tests.lvlm.definitions import settings_of
from tests.lvlm.generation import GREEDY, extend, write_weights
from tests.lvlm.oracle import widen_norms
from tests.lvlm.test_oracles import relative
from tests.small import EXPERTS, small_lvlm, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.probe.counting.shapes import shapes_only
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

FAMILY = EXPERTS[0]
ONCE = Protocol(min_samples=1, precision=None)
SERVED = sorted(set(SYSTEMS) - {"lightning"})
"""Lightning's linear layers know no normed queries."""


def cell_of(folder, system="s_attn", scope="decoder", layers=2, **fields):
    make = small_lvlm if scope == "lvlm" else small_model
    return make_cell(
        model=make(FAMILY, folder, num_hidden_layers=layers),
        attention=system,
        scope=scope,
        settings=settings_of(system),
        **{"kernel": "eager", "dtype": "float32", "num_visual": 64, "num_text": 8, **fields},
    )


@pytest.fixture
def checkpoint(tmp_path):
    """A whole small model, and transformers' own of it."""
    name = small_lvlm(FAMILY, tmp_path)
    return name, write_weights(name, dtype=torch.float32)


def seeing(name, **fields):
    return make_cell(
        model=name,
        weights=name,
        scope="lvlm",
        kernel="eager",
        dtype="float32",
        num_visual=64,
        **fields,
    )


def test_greedy_generation_is_transformers_own(checkpoint):
    name, model = checkpoint
    assert model.config.text_config._experts_implementation == "grouped_mm"
    ids = torch.tensor([[1, 5, 9]])
    pixels = build(seeing(name, num_text=3)).inputs[0]
    kinds = torch.cat([torch.ones(1, 64), torch.zeros_like(ids)], 1).long()
    with torch.no_grad():
        wanted = model.generate(
            input_ids=torch.cat([torch.full((1, 64), 96), ids], 1),
            pixel_values=pixels,
            image_grid_thw=torch.tensor([[1, 16, 16]]),
            mm_token_type_ids=kinds,
            max_new_tokens=5,
            **GREEDY,
        )
    ids = extend(ids, 5, lambda num: build(seeing(name, num_text=num)), pixels)
    assert torch.equal(ids[0], wanted[0, 64:])


def test_d_attn_full_equals_s_attn(tmp_path):
    fields = {"pass": "train", "kernel": "sdpa", "layout": "T,V,T"}
    one = build(cell_of(tmp_path, **fields))
    other = build(cell_of(tmp_path, "d_attn_full", **fields))
    other.module.load_state_dict(one.module.state_dict())
    for a, b in zip(one.inputs, other.inputs, strict=True):
        b.data.copy_(a.data)
    for workload in (one, other):
        widen_norms(workload.module)
        workload.run_backward(workload.run_forward())
    assert relative(other.inputs[0].grad, one.inputs[0].grad) <= 1e-4


@pytest.mark.parametrize("system", SERVED)
def test_closed_form_is_the_count_under_every_system(system, tmp_path):
    for pass_ in ("train", "decode"):
        found = trace(cell_of(tmp_path, system, num_visual=32, **{"pass": pass_}))
        assert found.flops == found.model_flops, pass_


def test_flops_are_of_active_experts_and_bytes_of_all(tmp_path):
    cell = cell_of(tmp_path)
    found, config = trace(cell), resolve(cell.model).config
    matrices = 3 * config.hidden_size * config.moe_intermediate_size
    assert found.params - found.active_params == 2 * (8 - 2) * matrices
    record = predict(cell, "h100-80gb")
    assert record.metrics["active_params"] == found.active_params
    assert record.metrics["weight_bytes"] >= 4 * found.params
    assert any(flag.startswith("experts: FLOPs are of the 2 of 8") for flag in record.flags)
    dense = trace(cell.replace(model=small_model("qwen3_vl", tmp_path)))
    wide = 3 * config.hidden_size * config.intermediate_size
    router = config.hidden_size * 8
    tokens = 64 + 8
    assert found.flops - dense.flops == 2 * 2 * tokens * (2 * matrices + router - wide)


def test_a_token_alone_reads_the_experts_that_it_meets(tmp_path):
    """A prefill of many tokens reads all of them, a decode step of one token two of eight."""
    config = resolve(cell_of(tmp_path).model).config
    expert = 3 * config.hidden_size * config.moe_intermediate_size * 4
    one, four, many = (
        trace(cell_of(tmp_path, batch=batch, num_visual=1, num_text=1, **{"pass": "decode"}))
        for batch in (1, 4, 40)
    )

    def read(found):
        return sum(
            op.bytes * count for op, count in found.operators.items() if op.name == "_grouped_mm"
        )

    def activations(batch):
        rows = 2 * batch  # Two experts a token; in, gate and up, out of them, and out.
        widths = config.hidden_size + 2 * 16 + 16 + config.hidden_size
        return rows * widths * 4 + 2 * 8 * 4

    assert read(one) == 2 * (2 * expert + activations(1))
    assert read(four) == 2 * (8 * expert + activations(4))
    assert read(many) == 2 * (8 * expert + activations(40))


def test_a_skewed_router_sends_all_tokens_to_the_same(tmp_path):
    """FLOPs and memory stay, as the grouped matmul has as many rows; two of eight are read."""
    config = resolve(cell_of(tmp_path).model).config
    expert = 3 * config.hidden_size * config.moe_intermediate_size * 4
    cell = cell_of(tmp_path, num_visual=256)
    even, skewed = trace(cell), trace(cell.replace(experts_skew=True))
    assert (even.flops, even.params) == (skewed.flops, skewed.params)
    assert even.timeline.peak()[0] == skewed.timeline.peak()[0]
    assert even.bytes_moved - skewed.bytes_moved == 2 * 6 * expert
    chosen = []
    workload = build(cell.replace(experts_skew=True))
    for layer in workload.module.modules():
        if type(layer).__name__.endswith("TopKRouter"):
            layer.register_forward_hook(lambda _m, _x, out: chosen.append(out[-1]))
    workload.run_forward()
    assert len(chosen) == 2
    assert all((indices == indices[0]).all() for indices in chosen)
    assert "the same" in "\n".join(predict(cell.replace(experts_skew=True), "cpu").flags)
    with pytest.raises(RequestError, match="has no experts"):
        predict(make_cell(num_visual=8, experts_skew=True), "h100-80gb")


def test_predicted_is_measured(tmp_path):
    """FLOPs to the last one, the CPU allocator's peak within a thousandth; fake tensors agree."""
    fields = {"pass": "train", "num_visual": 192, "checkpoint": True}
    cell = cell_of(tmp_path, "d_attn", "lvlm", 6, **fields)
    composed = trace(cell)
    for world in (shapes_only, fake_tensors):
        whole = trace(cell, compose=False, world=world)
        assert composed.operators == whole.operators
        assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    measured, predicted = measure(cell, "cpu", ONCE), predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    assert measured.metrics["flops"] == predicted.metrics["flops"]
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.001)


def test_layers_without_experts_are_served_beside_those_with(tmp_path):
    name = small_model(FAMILY, tmp_path, num_hidden_layers=4, mlp_only_layers=[1])
    cell = make_cell(model=name, scope="decoder", kernel="eager", dtype="float32", num_visual=8)
    found = trace(cell)
    assert found.flops == found.model_flops
    assert found.params - found.active_params == 3 * 6 * 3 * 32 * 16


def test_tiles_route_the_same(tmp_path):
    found = trace(cell_of(tmp_path, num_visual=9000, tiled=True, **{"pass": "train"}))
    assert found.flops > found.model_flops


def test_lora_and_packed_weights_leave_experts_as_they_are(tmp_path):
    """peft's all-linear and bitsandbytes take linear layers: here those of attention."""
    cell = cell_of(
        tmp_path, lora="r=4", weights_dtype="int4", dtype="bfloat16", **{"pass": "train"}
    )
    record = predict(cell, "h100-80gb")
    for name in ("lora", "weights_dtype"):
        wanted = f"{name}: experts are no linear layers, and are left as they are"
        assert wanted in record.flags
    found = trace(cell)
    trained = sum(p.numel for p in found.parameters if p.trained)
    assert trained == 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16))


def test_float64_is_refused(tmp_path):
    with pytest.raises(Unsupported, match=r"dtype float64: the experts of qwen3_vl_moe_text"):
        build(cell_of(tmp_path, dtype="float64"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_experts_per_tok": 9}, "num_experts_per_tok 9: at most num_experts 8"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok 0: a whole number from 1"),
        ({"moe_intermediate_size": -4}, "moe_intermediate_size -4: a whole number from 1"),
    ],
)
def test_experts_that_cannot_be_are_one_line(fields, message, tmp_path):
    name = small_model(FAMILY, tmp_path)
    config = json.loads((tmp_path / FAMILY / "config.json").read_text()) | fields
    config.pop("num_local_experts", None)
    (tmp_path / FAMILY / "config.json").write_text(json.dumps({"num_experts": 8, **config}))
    with pytest.raises(RequestError, match=message):
        resolve(name)
