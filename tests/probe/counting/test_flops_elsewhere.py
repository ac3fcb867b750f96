"""Our FLOPs against the counters of others on the same module; every difference has a name."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.small import small_model
from workbench.lvlm.build import build
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell

LAYERS, HEADS, HEAD, MLP, V, T = 2, 4, 8, 48, 64, 16
SILU = LAYERS * (V + T) * MLP
"""deepspeed counts an activation function as one FLOP an element; we count matmuls alone."""
SOFTMAX = LAYERS * HEADS * (V + T) ** 2
"""So it does ``torch.nn.functional.softmax``, which transformers' eager attention calls."""
FUSED = LAYERS * 4 * HEADS * HEAD * (T * T + T * V)
"""It sees public functions: a branch that calls the fused operator itself escapes it."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_model("mistral", tmp_path_factory.mktemp("models"))


def cell_of(small, **fields):
    sizes = {"num_visual": V, "num_text": T, "dtype": "float32"}
    return make_cell(model=small, scope="decoder", **sizes, **fields)


@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize(
    "attention", ["s_attn", "d_attn", "d_attn_full", "d_attn_cascade", "himix"]
)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_torch_s_counter(small, attention, pass_, device):
    """Equal under eager; for fused attention on a CPU torch's counter has no formula."""
    cell = cell_of(small, attention=attention, kernel="eager", **{"pass": pass_})
    with torch.device(device):
        workload = build(cell, device)
    with FlopCounterMode(display=False) as counter:
        outputs = workload.run_forward()
        if pass_ == "train":
            workload.run_backward(outputs)
    assert counter.get_total_flops() == trace(cell).flops


@pytest.mark.parametrize(
    ("attention", "kernel", "elementwise", "unseen"),
    [
        ("s_attn", "eager", SILU + SOFTMAX, 0),
        ("s_attn", "sdpa", SILU, 0),
        ("d_attn", "eager", SILU, 0),
        ("d_attn", "sdpa", SILU, FUSED),
    ],
)
def test_deepspeed_s_profiler(small, attention, kernel, elementwise, unseen):
    """Its multiply-adds are half of our FLOPs, dense as ours; its FLOPs add elementwise work."""
    from deepspeed.profiling.flops_profiler import FlopsProfiler

    cell = cell_of(small, attention=attention, kernel=kernel)
    workload = build(cell)
    profiler = FlopsProfiler(workload.module)
    profiler.start_profile()
    workload.run_forward()
    macs, flops = profiler.get_total_macs(), profiler.get_total_flops()
    params = profiler.get_total_params()
    profiler.end_profile()
    counted = trace(cell)
    assert 2 * macs == counted.flops - unseen
    assert flops == counted.flops - unseen + elementwise
    assert params == counted.params
