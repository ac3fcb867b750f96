"""Queries that are scaled by their position (Ministral 3), under every system that has them."""

import json
from pathlib import Path

import pytest
import torch

from tests.lvlm import test_pruning
from tests.lvlm.scaled import factors
from tests.lvlm.test_decode import fill, pair
from tests.lvlm.test_oracles import assert_equal_to_oracle, relative, small_workload
from tests.small import LAYER_SYSTEMS, small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

OTHERS = {"gated_xattn", "lightning"}
"""Those whose layer has projections of its own, or layers of no positions."""


@pytest.mark.parametrize("system", sorted(set(LAYER_SYSTEMS) - OTHERS))
def test_every_system_scales_by_the_place_in_the_sequence(system, tmp_path):
    kernel = "eager" if system == "cmai" else "sdpa"
    workload = small_workload("ministral3", tmp_path, system, kernel, layout="T,V,T", num_text=7)
    assert float(workload.context.query_factor(0, "sequence").max()) > 1.3
    assert_equal_to_oracle(workload)


@pytest.mark.parametrize("system", ["fastv", "pyramid_drop"])
def test_rows_that_are_left_keep_their_places(system, tmp_path):
    cell = test_pruning.cell_of(tmp_path, system, "ministral3", **{"pass": "train"})
    test_pruning.assert_equal_to_definition(cell)


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_full", "moh"])
def test_a_step_is_the_last_row_of_the_prefill(system, tmp_path):
    prefilled, decoded = pair("ministral3", tmp_path, system, "sdpa", scope="layer")
    with torch.no_grad():
        outputs = fill(decoded, prefilled, prefilled.run_forward)
        decoded.inputs[0].copy_(prefilled.inputs[-1][:, -1:])
        (found,) = decoded.run_forward()
    assert relative(found, outputs[-1][:, -1:]) <= 1e-9


def test_a_streaming_step_stands_at_its_place_in_the_cache(tmp_path):
    cell = make_cell(
        model=small_model("ministral3", tmp_path),
        attention="streaming",
        settings="sinks=4,window=21",
        num_visual=200,
        num_text=9,
        kernel="eager",
        dtype="float64",
        **{"pass": "decode"},
    )
    workload = build(cell)
    assert workload.module.keys.shape[2] == 24
    wanted = factors(workload.context.model.config, torch.tensor([24]))[:, None]
    assert torch.allclose(workload.module.factor, wanted)


def test_without_long_positions_nothing_is_scaled(tmp_path):
    workload = small_workload("ministral3", tmp_path, "s_attn", "sdpa", num_visual=4, num_text=3)
    assert torch.equal(workload.context.query_factor(0, "sequence"), torch.ones(7, 1).double())


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "fastv"])
def test_flops_are_mistrals(system, tmp_path):
    found = []
    for family in ("ministral3", "mistral"):
        model = small_model(family, tmp_path, num_hidden_layers=4)
        cell = make_cell(
            model=model, attention=system, scope="decoder", num_visual=64, kernel="eager"
        )
        found.append(trace(cell))
    assert found[0].flops == found[1].flops == found[0].model_flops
    assert found[0].params == found[1].params


@pytest.mark.parametrize(
    ("field", "value"), [("llama_4_scaling_beta", None), ("llama_4_scaling_beta", "x")]
)
def test_a_folder_without_the_scale_is_one_line(field, value, tmp_path):
    file = Path(small_model("ministral3", tmp_path)) / "config.json"
    config = json.loads(file.read_text())
    config["rope_parameters"][field] = value
    file.write_text(json.dumps(config))
    with pytest.raises(RequestError, match="its queries are scaled by these, two numbers above 0"):
        resolve(str(file.parent))
