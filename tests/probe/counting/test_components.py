"""Seconds go to the part that takes them, forward and backward."""

import time

import pytest

from tests.small import small_lvlm, small_model
from workbench.lvlm.build import build
from workbench.probe.counting.components import component_seconds
from workbench.probe.measuring.measure import measure
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.protocol import Protocol

NAP_S = 1.5
ONCE = Protocol(min_samples=1, precision=None)


def nap(*_):
    time.sleep(NAP_S)


def slow(module):
    """A module whose forward and backward each take at least the nap."""
    module.register_forward_pre_hook(nap)
    module.register_forward_hook(lambda _m, _i, out: out.register_hook(nap) and None)


def lvlm(folder, family="gemma3", **fields):
    visual = {"gemma3": 4, "qwen2_5_vl": 16, "llama": 16}[family]
    return make_cell(
        model=small_lvlm(family, folder),
        scope="lvlm",
        kernel="eager",
        dtype="float32",
        attention="d_attn",
        num_visual=visual,
        num_text=5,
        **{"pass": "train", **fields},
    )


@pytest.mark.parametrize("part", ["tower", "adapter"])
def test_a_slow_part_is_found(part, tmp_path):
    workload = build(lvlm(tmp_path))
    inner = workload.modules[part]
    slow(inner.tower.embeddings if part == "tower" else inner.mm_soft_emb_norm)
    found = component_seconds(workload, 1)
    assert set(found) == {"tower", "adapter", "decoder"}
    for phase in ("forward_s", "backward_s"):
        assert max(found, key=lambda name: found[name][phase]) == part
        assert found[part][phase] >= NAP_S


def test_the_head_of_a_decoder(tmp_path):
    cell = make_cell(
        model=small_model("mistral", tmp_path),
        scope="decoder",
        dtype="float32",
        num_visual=9,
        num_text=5,
        **{"pass": "train"},
    )
    workload = build(cell)
    slow(workload.module.lm_head)
    found = component_seconds(workload, 1)
    assert set(found) == {"layers", "head"}
    for phase in ("forward_s", "backward_s"):
        assert found["head"][phase] >= NAP_S > found["layers"][phase]


@pytest.mark.parametrize("family", ["llama", "qwen2_5_vl"])
def test_a_record_splits_parameters_flops_and_seconds(family, tmp_path):
    record = measure(lvlm(tmp_path, family), "cpu", ONCE)
    parts = record.details["parts"]
    assert sum(part["flops"] for part in parts.values()) == record.metrics["flops"]
    assert sum(part["params"] for part in parts.values()) == record.metrics["params"]
    assert all(part["forward_s"] > 0 and part["backward_s"] > 0 for part in parts.values())


def test_a_layer_is_one_part(tmp_path):
    cell = make_cell(model=small_model("mistral", tmp_path), num_visual=9, dtype="float32")
    assert "parts" not in measure(cell, "cpu", ONCE).details
