"""Activation offload: the same numbers, and the bytes where they are said to be."""

import gc

import pytest
import torch

from tests.small import small_model
from workbench.lvlm.build import build
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol

ONCE = Protocol(min_samples=1, precision=None)


def offloaded(tmp_path, family="mistral", **fields):
    layers = 6 if family == "gemma3" else 4
    extra = {"layer_types": ["sliding_attention", "full_attention"] * 3}
    return make_cell(
        model=small_model(
            family, tmp_path, num_hidden_layers=layers, **(extra if family == "gemma3" else {})
        ),
        **{
            "scope": "decoder",
            "pass": "train",
            "kernel": "eager",
            "num_visual": 200,
            "num_text": 33,
            "dtype": "float32",
            "checkpoint": True,
            "offload": True,
            **fields,
        },
    )


def gradients(cell):
    torch.manual_seed(0)
    workload = build(cell, "cpu")
    outputs = workload.run_forward()
    workload.run_backward(outputs)
    inputs = [x for x in workload.inputs if x.requires_grad]
    return outputs[0], [t.grad for t in (*workload.module.parameters(), *inputs)], workload


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
@pytest.mark.parametrize(
    "fields",
    [
        {"attention": "s_attn"},
        {"attention": "s_attn", "checkpoint_every": 2},
        {"attention": "d_attn"},
        {"attention": "d_attn", "checkpoint_every": 3, "chunk": 64},
        {"attention": "himix"},
    ],
    ids=lambda fields: " ".join(map(str, fields.values())),
)
def test_loss_and_gradients_are_the_same_to_the_bit(family, fields, tmp_path):
    cell = offloaded(tmp_path, family, **fields)
    loss, found, workload = gradients(cell)
    plain_loss, wanted, _ = gradients(cell.replace(offload=False))
    assert torch.equal(loss, plain_loss)
    for got, want in zip(found, wanted, strict=True):
        assert (got is None) == (want is None)
        assert got is None or torch.equal(got, want)
    assert workload.context.offload.most_bytes > 0
    gc.collect()
    assert workload.context.offload.host_bytes == 0  # Nothing waits once a backward is over.


@pytest.mark.parametrize("attention", ["s_attn", "d_attn", "himix"])
@pytest.mark.parametrize("every", [None, 2])
def test_predicted_bytes_are_those_measured_on_a_cpu(attention, every, tmp_path):
    cell = offloaded(tmp_path, attention=attention, checkpoint_every=every)
    found, told = measure(cell, "cpu", ONCE).metrics, predict(cell, "cpu").metrics
    assert found["offload_bytes"] == told["offload_bytes"] > 0
    # On a CPU the copies are where the activations were.
    assert abs(told["activation_bytes"] / found["activation_bytes"] - 1) <= 0.02
    assert abs(told["peak_bytes"] / found["peak_bytes"] - 1) <= 0.05


def test_boundaries_of_every_layer_leave_the_card(tmp_path):
    cell = offloaded(tmp_path, num_visual=4000, kernel="sdpa", logits="text")
    plain, moved = predict(cell.replace(offload=False), "h100-80gb"), predict(cell, "h100-80gb")
    boundary = 4 * (4000 + 33) * 32  # The sequence in float32, once a layer.
    assert moved.metrics["offload_bytes"] == 4 * boundary
    assert moved.metrics["activation_bytes"] < plain.metrics["activation_bytes"] - 3 * boundary
    # Back on the card at the peak: the layer's own, and the one on its way.
    assert moved.metrics["peak_bytes"] <= plain.metrics["peak_bytes"]
    assert "offloaded" not in moved.details["memory_by_kind"]
    assert "offloaded" in predict(cell, "cpu").details["memory_by_kind"]
    assert moved.metrics["flops"] == plain.metrics["flops"]


def test_the_link_bounds_the_time(tmp_path):
    slow = tmp_path / "slow.yaml"
    slow.write_text(
        "peak_flops: {bfloat16: 1.0e+15, float16: 1.0e+15, float32: 1.0e+15, float64: 1.0e+15}\n"
        "bandwidth_bytes_per_s: 1.0e+15\ntotal_bytes: 80 GiB\ncontext_bytes: 0\n"
        "host_bandwidth_bytes_per_s: 1000\n"
    )
    cell = offloaded(tmp_path)
    record = predict(cell, str(slow))
    link = record.details["offload"]
    assert link["bytes_out"] == link["bytes_in"] == record.metrics["offload_bytes"]
    assert record.metrics["time_s"] == link["time_s"] == 2 * link["bytes_out"] / 1000
    unknown = predict(cell, "b200-192gb")
    assert unknown.details["offload"]["time_s"] is None
    assert any(flag.startswith("offload: ") for flag in unknown.flags)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"checkpoint": False}, "needs checkpoint"),
        ({"pass": "forward"}, "use train"),
        ({"scope": "layer"}, "scope decoder or lvlm"),
    ],
)
def test_nothing_to_offload_is_explained(fields, words, tmp_path):
    with pytest.raises(RequestError, match=words):
        predict(offloaded(tmp_path, **fields), "h100-80gb")
