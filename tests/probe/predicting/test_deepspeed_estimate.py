"""deepspeed's estimate in our words equals its own function's, where deepspeed is installed."""

import re
from pathlib import Path

import pytest

from tests.small import small_model
from workbench.probe.counting.states import Parameter
from workbench.probe.predicting.deepspeed_estimate import estimated_bytes
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell

STEP = {"scope": "decoder", "pass": "train", "num_visual": 8, "world_size": 32}
PARAMETERS = [Parameter("decoder", n) for n in (134_217_728, 58_720_256, 4096, 7_000_000_000)]


def own_function(zero):
    pytest.importorskip("deepspeed", reason="the extra train is not installed")
    if zero == 2:
        from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

        return estimate_zero2_model_states_mem_needs
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

    return estimate_zero3_model_states_mem_needs


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("zero", [2, 3])
def test_the_formulas_are_deepspeeds(zero, offload):
    total, largest = sum(p.numel for p in PARAMETERS), max(p.numel for p in PARAMETERS)
    layout = {"num_gpus_per_node": 8, "num_nodes": 4, "cpu_offload": offload}
    extra = {"largest_layer_params": largest, "cpu_offload_params": False} if zero == 3 else {}
    told = own_function(zero)(total_params=total, **extra, **layout)
    cell = make_cell(**STEP, zero=zero, offload_optimizer=offload)
    assert abs(estimated_bytes(cell, PARAMETERS) - told[1]) <= 1


@pytest.mark.parametrize("zero", [2, 3])
def test_what_it_prints_is_what_a_record_says(zero, tmp_path, capsys):
    own_function(zero)
    if zero == 2:
        from deepspeed.runtime.zero.stage_1_and_2 import (
            estimate_zero2_model_states_mem_needs_all_cold as estimate,
        )
    else:
        from deepspeed.runtime.zero.stage3 import (
            estimate_zero3_model_states_mem_needs_all_cold as estimate,
        )
    total, largest = 7_248_023_552, 134_217_728  # Mistral 7B, whose largest layer is its head.
    extra = {"largest_layer_params": largest} if zero == 3 else {}
    estimate(total_params=total, num_gpus_per_node=8, num_nodes=4, **extra)
    lines = [line for line in capsys.readouterr().out.splitlines() if "none" in line]
    printed = float(re.findall(r"([\d.]+)GB", lines[-1])[1])
    record = predict(make_cell(**STEP, zero=zero, logits="text"), "h100-80gb")
    states = record.details["states"]
    assert states["deepspeed_estimate_bytes"] / 2**30 == pytest.approx(printed, abs=0.006)
    assert states["held_bytes"] == sum(states["held"].values())
    assert f"stage {zero}" in states["difference"]
    assert "float32 gradients" in states["difference"]


def test_stages_that_it_does_not_know(tmp_path: Path):
    cell = make_cell(model=small_model("mistral", tmp_path), **{**STEP, "zero": 1})
    states = predict(cell, "h100-80gb").details["states"]
    assert set(states) == {"held", "held_bytes"}
    layer = make_cell(model=cell.model, num_visual=8, **{"pass": "train"})
    assert "states" not in predict(layer, "h100-80gb").details
