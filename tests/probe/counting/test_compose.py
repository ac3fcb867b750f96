"""A decoder composed from three units equals the decoder traced layer by layer."""

import pytest

from tests.small import FAMILY_NAMES, small_model
from workbench.probe.counting.allocator import CARD
from workbench.probe.counting.stretches import plan_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.footprint import footprint
from workbench.vocabulary.cell import make_cell

CASES = [
    *[(family, {"attention": "d_attn", "checkpoint": True}) for family in FAMILY_NAMES],
    ("mistral", {"attention": "s_attn"}),
    ("gemma2", {"attention": "s_attn"}),
    ("mistral", {"attention": "d_attn_cascade", "logits": "text"}),
    ("mistral", {"attention": "himix", "checkpoint": True}),
    ("mistral", {"attention": "d_attn", "checkpoint": True, "chunk": 8}),
    ("mistral", {"attention": "s_attn", "checkpoint": True, "checkpoint_every": 2}),
    ("mistral", {"attention": "s_attn", "pass": "forward"}),
    ("mistral", {"attention": "s_attn", "checkpoint": True, "offload": True}),
    ("gemma3", {"attention": "d_attn", "checkpoint": True, "offload": True}),
    ("mistral", {"attention": "s_attn", "kernel": "flash", "dtype": "bfloat16"}),
]


SIZES = {"num_visual": 33, "num_text": 9}


@pytest.mark.parametrize(("family", "fields"), CASES, ids=lambda c: str(c).replace("'", ""))
def test_composing_equals_tracing_all_layers(family, fields, tmp_path):
    layers = {"cohere2": 8, "exaone4": 8, "gemma2": 8, "gemma3": 9, "llama4": 16}.get(
        family, 8 if "checkpoint_every" in fields else 5
    )
    kinds = ["sliding_attention", "full_attention"] * 5
    extra = {"layer_types": kinds[:layers]} if family == "gemma3" else {}
    cell = make_cell(
        model=small_model(family, tmp_path, num_hidden_layers=layers, **extra),
        scope="decoder",
        **{"kernel": "eager", "pass": "train", "dtype": "float32", **SIZES, **fields},
    )
    assert plan_of(cell)
    composed, whole = trace(cell, CARD), trace(cell, CARD, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert composed.operators == whole.operators
    for name in ("flops", "flops_causal", "model_flops", "params", "offload_bytes"):
        assert getattr(composed, name) == getattr(whole, name)
    kinds_composed = composed.timeline.by_kind(composed.timeline.peak()[1])
    assert kinds_composed == whole.timeline.by_kind(whole.timeline.peak()[1])


@pytest.mark.parametrize("attention", ["d_attn", "gated_xattn", "s_attn"])
def test_an_allocator_is_asked_for_as_much_as_by_all_layers(attention, tmp_path):
    """Gradients are there while the optimizer steps, also where nothing is composed."""
    cell = make_cell(
        model=small_model("mistral", tmp_path, num_hidden_layers=10),
        attention=attention,
        scope="decoder",
        kernel="eager",
        checkpoint=True,
        num_visual=33,
        num_text=9,
        **{"pass": "train"},
    )
    composed, whole = (trace(cell, CARD, compose=compose) for compose in (True, False))
    alive = [b for b in whole.timeline.blocks if b.kind == "gradients" and b.died is None]
    assert len(alive) == len(whole.parameters)
    outcomes = [footprint(cell, traced, CARD, None).outcome for traced in (composed, whole)]
    assert outcomes[0] == outcomes[1]
