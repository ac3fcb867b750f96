"""Meta tensors trace what fake tensors trace: every operator and every byte."""

import pytest

from tests.fake_tensors import fake_tensors
from tests.small import FAMILY_NAMES, small_model
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("attention", ["s_attn", "d_attn", "d_attn_full"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_meta_equals_fake(family, attention, kernel, tmp_path):
    cell = make_cell(
        model=small_model(family, tmp_path),
        attention=attention,
        kernel=kernel,
        scope="decoder",
        num_visual=33,
        num_text=9,
        checkpoint=attention != "d_attn_full",
        **{"pass": "train"},
    )
    try:
        quick = trace(cell)
    except Unsupported:
        assert kernel == "sdpa"
        return
    slow = trace(cell, world=fake_tensors)
    assert quick.operators == slow.operators
    assert quick.timeline.peak()[0] == slow.timeline.peak()[0]
    assert (quick.flops, quick.flops_causal) == (slow.flops, slow.flops_causal)
