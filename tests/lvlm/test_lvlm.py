"""Scope lvlm: the published tower, the adapter, and how a model's cost splits into its parts."""

import pytest
import torch

from tests.lvlm.definitions import settings_of
from tests.small import small_lvlm, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.towers import siglip
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.protocol import Protocol

TOWER = 428_225_600
"""Parameters of transformers' SigLIP vision model under the published configuration."""


def small_cell(folder, **fields):
    return make_cell(
        model=small_model("mistral", folder),
        dtype="float32",
        settings=settings_of(str(fields.get("attention"))),
        **{"scope": "lvlm", "num_visual": 729, "num_text": 7, "kernel": "eager", **fields},
    )


@pytest.mark.parametrize("system", sorted(SYSTEMS))
@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_costs_are_the_closed_forms_of_the_parts(system, pass_, tmp_path):
    cell = small_cell(tmp_path, attention=system, batch=2, **{"pass": pass_})
    found = trace(cell)
    decoder = trace(cell.replace(scope="decoder"))
    outside = {}
    for op, count in found.operators.items():
        outside[op.component] = outside.get(op.component, 0) + op.flops * count
    assert outside["decoder"] == decoder.flops
    assert found.flops == sum(outside.values())
    # 2 images: patches, then 27 layers of q, k, v, o, MLP and attention over 729 tokens.
    patches = 2 * 2 * 729 * 1152 * 588
    layers = 27 * 2 * 729 * (2 * (4 * 1152**2 + 2 * 1152 * 4304) + 4 * 729 * 1152)
    rows = 729 + (81 if system == "cross_lmm" else 0)  # The pooled features, too.
    adapter = 0 if not SYSTEMS[system].adapter else 2 * 2 * rows * 32 * (1152 + 32)
    times = 3 if pass_ == "train" else 1
    expected = times * (patches + layers + adapter) - (pass_ == "train") * patches
    assert found.model_flops - decoder.model_flops == expected
    assert found.flops_causal - decoder.flops_causal == found.flops - decoder.flops
    if pass_ == "forward":
        assert outside["tower"] == patches + layers
        assert found.flops == found.model_flops


def test_parameters_of_the_parts(tmp_path):
    found = trace(small_cell(tmp_path)).params_by_component
    decoder = trace(small_cell(tmp_path, scope="decoder")).params
    adapter = 1152 + 1152 * 32 + 32 + 32 * 32 + 32
    assert found == {"tower": TOWER, "adapter": adapter, "decoder": decoder}
    himix = trace(small_cell(tmp_path, attention="himix")).params_by_component
    assert "adapter" not in himix


def test_visual_positions_are_one_vector_a_token(tmp_path):
    plain, learned = (
        trace(small_cell(tmp_path, attention="d_attn", visual_positions=on))
        for on in (False, True)
    )
    assert learned.params - plain.params == 729 * 32
    assert learned.flops == plain.flops


def test_a_prediction_splits_the_papers_model():
    cell = make_cell(scope="lvlm", attention="d_attn", num_visual=7290, logits="text")
    record = predict(cell, "h100-80gb", "none")  # A calibrated host runs beside the parts.
    parts = record.details["parts"]
    assert parts["tower"]["params"] == TOWER
    assert parts["decoder"]["params"] == 7_248_023_552
    assert sum(p["flops"] for p in parts.values()) == record.metrics["flops"]
    assert sum(p["params"] for p in parts.values()) == record.metrics["params"]
    assert sum(p["time_s"] for p in parts.values()) == pytest.approx(record.metrics["time_s"])


def test_pixels_reach_the_logits(tmp_path, monkeypatch):
    monkeypatch.setitem(siglip.PUBLISHED, "num_hidden_layers", 2)  # Enough, and quick.
    workload = build(small_cell(tmp_path, attention="d_attn", num_visual=1458))
    assert workload.inputs[0].shape == (2, 3, 384, 384)
    (first,) = workload.run_forward()
    assert first.shape == (1, 1465, 97)
    assert torch.isfinite(first).all()
    workload.inputs[0][1] += 1.0
    (second,) = workload.run_forward()
    assert torch.equal(first[:, :729], second[:, :729])
    assert not torch.equal(first[:, 729:], second[:, 729:])


def test_no_image_is_the_decoder_alone(tmp_path):
    found = trace(small_cell(tmp_path, num_visual=0))
    assert found.flops == trace(small_cell(tmp_path, num_visual=0, scope="decoder")).flops


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("system", ["s_attn", "moh"])
def test_without_an_image_nothing_steps_on_the_tower(system, accumulate, tmp_path):
    """Its weights have states and no gradients: nor do they have a share in the step's peak."""
    cell = make_cell(
        model=small_lvlm("gemma3", tmp_path),
        attention=system,
        scope="lvlm",
        dtype="float32",
        kernel="eager",
        num_visual=0,
        num_text=9,
        accumulate=accumulate,
        **{"pass": "train"},
    )
    measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None)).metrics
    found = predict(cell, "cpu").metrics
    assert found["optimizer_bytes"] == pytest.approx(measured["optimizer_bytes"], rel=0.001)
    assert found["peak_bytes"] == pytest.approx(measured["peak_bytes"], rel=0.002)
    parameters = trace(cell).parameters
    towers = [p for p in parameters if p.trained and p.component == "tower"]
    assert towers
    assert not any(p.stepped_on for p in towers)
    sharded = trace(cell.replace(world_size=2, zero=1)).parameters
    assert all(p.stepped_on == p.trained for p in sharded)


def test_a_decode_step_leaves_the_tower_alone(tmp_path):
    fields = {"pass": "decode"}
    found = trace(small_cell(tmp_path, **fields))
    assert found.flops == trace(small_cell(tmp_path, scope="decoder", **fields)).flops


def test_a_broken_number_of_tokens_names_its_neighbours(tmp_path):
    with pytest.raises(RequestError, match=r"1000: .* 729 tokens an image; .* 729 and 1458"):
        build(small_cell(tmp_path, num_visual=1000))


def test_visual_positions_need_the_scope(tmp_path):
    with pytest.raises(RequestError, match="visual_positions: scope decoder"):
        build(small_cell(tmp_path, scope="decoder", visual_positions=True))


@pytest.mark.parametrize(
    ("family", "visual"), [("mistral", 32), ("gemma3", 8), ("qwen2_5_vl", 16)]
)
def test_what_is_trained_has_gradients(family, visual, tmp_path):
    """States of anything else would be counted for nothing, and be doubled by deepspeed."""
    workload = build(
        make_cell(
            model=small_lvlm(family, tmp_path),
            scope="lvlm",
            kernel="eager",
            dtype="float32",
            num_visual=visual,
            num_text=7,
            **{"pass": "train"},
        )
    )
    workload.step()
    without = [n for n, p in workload.module.named_parameters() if p.grad is None]
    unused = ("tower.tower.head.", "tower.tower.post_layernorm.")
    assert all(name.startswith(unused) for name in without)
    assert not any(p.requires_grad for p in workload.module.parameters() if p.grad is None)


def test_checkpointing_reaches_the_tower(tmp_path):
    fields = {"attention": "d_attn", "pass": "train"}
    plain, saved = (trace(small_cell(tmp_path, checkpoint=on, **fields)) for on in (False, True))
    assert saved.timeline.peak()[0] < plain.timeline.peak()[0]
    assert saved.flops > plain.flops
    assert saved.model_flops == plain.model_flops


@pytest.mark.parametrize("attention", ["himix", "saisa"])
def test_features_of_another_width_are_refused(attention, tmp_path):
    cell = make_cell(
        model=small_lvlm("mistral", tmp_path),
        attention=attention,
        scope="lvlm",
        tower="siglip",
        num_visual=32,
        num_text=7,
        dtype="float32",
    )
    with pytest.raises(Unsupported, match=f"{attention} keeps the tower's features, 1,152 wide"):
        build(cell)


@pytest.mark.parametrize("attention", ["d_attn", "d_attn_biased", "d_attn_tanh"])
def test_text_that_nothing_trained_has_entered_lacks_a_backward(attention, tmp_path):
    """In the first of two layers, where the decoder is frozen; the last has all three."""
    cell = make_cell(
        model=small_lvlm("mistral", tmp_path),
        attention=attention,
        scope="lvlm",
        num_visual=32,
        num_text=8,
        kernel="eager",
        dtype="float32",
        frozen="decoder",
        **{"pass": "train"},
    )
    found = trace(cell)
    hidden, per_pair = 8 * 8 - 8 * 9 // 2, 4 * 4 * 8
    assert found.flops - found.flops_causal == (1 + 3) * hidden * per_pair
