"""Layers that differ: composed from units is all layers traced, whoever makes them differ."""

from copy import copy

import pytest
import torch
from torch import nn

from tests.small import small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.s_attn import SAttn
from workbench.lvlm.emulate import Emulation, emulated_rank
from workbench.lvlm.kinds import Stretch, _built, shortened, stretch_of, stretches_of
from workbench.lvlm.models import FAMILIES
from workbench.lvlm.places import kinds_of
from workbench.probe.counting.stretches import plan_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.emulation import check_emulation, plan_rank
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.protocol import Protocol

EXTRA = 24


class Widened(nn.Module):
    """A layer, and beside it two matrices of its own."""

    def __init__(self, inner, parts, context):
        super().__init__()
        self.inner = inner
        width = parts.hidden_size
        self.up = context.create(lambda: nn.Linear(width, EXTRA, bias=False))
        self.down = context.create(lambda: nn.Linear(EXTRA, width, bias=False))
        for module in (self.up, self.down):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, sequence):
        (out,) = self.inner(sequence)
        return (out + self.down(self.up(sequence)),)


class Alternating(SAttn):
    """S-Attn, but every third layer is widened."""

    name = "alternating"
    label = "Alternating"

    def role(self, index):
        return "widened" if index % 3 == 1 else "plain"

    def layer(self, parts, context, place):
        inner = super().layer(parts, context, place)
        return Widened(inner, parts, context) if place.role == "widened" else inner

    def linear_flops(self, parts, place, cell):
        tokens = cell.batch * place.layout.length
        own = 4 * tokens * parts.hidden_size * EXTRA if place.role == "widened" else 0
        return super().linear_flops(parts, place, cell) + own


@pytest.fixture
def alternating():
    SYSTEMS["s_attn"]  # The package's own are there first.
    SYSTEMS._entries["alternating"] = Alternating()
    yield
    del SYSTEMS._entries["alternating"]


def cell_of(folder, family="mistral", layers=11, **fields):
    model = small_model(family, folder, num_hidden_layers=layers)
    return make_cell(
        model=model,
        scope="decoder",
        kernel="eager",
        dtype="float32",
        num_visual=19,
        num_text=7,
        **fields,
    )


SAME = (
    "params",
    "parameters",
    "flops",
    "flops_causal",
    "model_flops",
    "model_flops_causal",
    "skipped_by_place",
    "bytes_moved",
    "kv_cache_bytes",
    "offload_bytes",
)


def assert_composed(cell):
    """A decoder traced from few of its layers is the one traced whole; gives that one."""
    assert plan_of(cell)
    composed, whole = trace(cell), trace(cell, compose=False)
    for name in SAME:
        assert getattr(composed, name) == getattr(whole, name), name
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert (composed.operators == whole.operators) is True
    return whole


@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_system_whose_layers_differ(pass_, checkpoint, alternating, tmp_path):
    cell = cell_of(
        tmp_path, layers=14, attention="alternating", checkpoint=checkpoint, **{"pass": pass_}
    )
    kinds = kinds_of(cell)
    assert (stretch_of(kinds), len(set(kinds))) == (Stretch(0, 3, 4, 14), 2)
    assert_composed(cell)
    plain = trace(cell.replace(attention="s_attn"))
    # Layers 1, 4, 7, 10 and 13.
    assert trace(cell).params - plain.params == 5 * 2 * 32 * EXTRA
    if not checkpoint:
        assert trace(cell).flops == trace(cell).model_flops


@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_a_model_whose_layers_differ(pass_, monkeypatch, tmp_path):
    """Every second layer has a wider MLP; no word of the config says so."""
    family = type(FAMILIES["mistral"])
    build = family.layer

    def layer(self, config, index):
        if index % 2:
            config = copy(config)
            config.intermediate_size *= 2
        return build(self, config, index)

    cell = cell_of(tmp_path, **{"pass": pass_})
    assert stretch_of(kinds_of(cell)).unit == 1
    before = trace(cell).params
    _built.cache_clear()
    monkeypatch.setattr(family, "layer", layer)
    assert stretch_of(kinds_of(cell)).unit == 2
    assert_composed(cell)
    assert trace(cell).params - before == 5 * 3 * 32 * 48
    _built.cache_clear()


def test_one_layer_that_is_like_no_other(alternating, monkeypatch, tmp_path):
    monkeypatch.setattr(Alternating, "role", lambda self, index: str(index * (index == 5)))
    cell = cell_of(tmp_path, attention="alternating")
    assert stretch_of(kinds_of(cell)) == Stretch(0, 1, 5, 11)
    assert_composed(cell)


def test_where_nothing_repeats_everything_is_traced(alternating, monkeypatch, tmp_path):
    monkeypatch.setattr(Alternating, "role", lambda self, index: str(index))
    cell = cell_of(tmp_path, layers=5, attention="alternating")
    assert stretch_of(kinds_of(cell)) == Stretch(0, 5, 1, 5)
    assert not plan_of(cell)


def test_an_emulated_rank_has_one_layer_of_every_kind(alternating, tmp_path):
    cell = cell_of(
        tmp_path,
        layers=9,
        attention="alternating",
        checkpoint=True,
        zero=3,
        world_size=8,
        **{"pass": "train"},
    )
    assert check_emulation(cell, 6) == 6
    plan = plan_rank(cell, 6)
    assert plan.resident_layers == 2
    rank = emulated_rank(cell, Emulation(6, 10), "cpu")
    blocks = [block.inner for block in rank.module.layers]
    assert blocks[0] is blocks[2] is blocks[3] is blocks[5]
    assert blocks[1] is blocks[4] is not blocks[0]
    assert isinstance(blocks[1], Widened)
    rank.step()
    assert torch.isfinite(rank.run_forward()[0]).all()
    record = measure(cell, "cpu", Protocol(iterations=1, emulate=6))
    assert record.metrics["params"] == trace(cell, compose=False).params


def test_the_period_of_kinds():
    assert stretch_of("aaaa") == Stretch(0, 1, 4, 4)
    assert stretch_of("ababa") == Stretch(0, 2, 2, 5)
    assert stretch_of("aabaabaa") == Stretch(0, 3, 2, 8)
    assert stretch_of("aaab") == Stretch(0, 1, 3, 4)
    assert stretch_of("xyababab") == Stretch(2, 2, 3, 8)
    assert stretch_of("abc") == Stretch(0, 3, 1, 3)
    assert stretch_of("a") == Stretch(0, 1, 1, 1)
    # Four under a checkpoint: groups abab, abab, ab.
    assert stretch_of("ababababab", 4) == Stretch(0, 4, 2, 10)
    assert shortened([Stretch(2, 2, 3, 9)], 9, 1) == (0, 1, 2, 3, 8)


def test_every_stretch_that_repeats_is_found():
    assert stretches_of("aaaaaaab" * 4) == tuple(Stretch(at, 1, 7, 32) for at in (0, 8, 16, 24))
    assert stretches_of("aaab" * 20) == (Stretch(0, 4, 20, 80),)
    assert stretches_of("xaaaaybbbbb") == (Stretch(1, 1, 4, 11), Stretch(6, 1, 5, 11))
    assert stretches_of("aaa") == stretches_of("abc") == stretches_of("") == ()
    assert stretches_of("ab" * 20, 4) == (Stretch(0, 4, 10, 40),)
    assert shortened(stretches_of("xaaaaybbbbb"), 11, 3) == (0, 1, 2, 3, 5, 6, 7, 8)


@pytest.mark.parametrize("fields", [{"pass": "train"}, {"pass": "train", "checkpoint": True}])
@pytest.mark.parametrize("attention", ["pyramid_drop", "lightning"])
def test_a_decoder_of_several_stretches(attention, fields, tmp_path):
    cell = cell_of(tmp_path, layers=24, attention=attention, **fields)
    if attention == "lightning":
        cell = cell.replace(kernel="sdpa")
    plan = plan_of(cell)
    assert len(plan) > 1
    assert_composed(cell)
