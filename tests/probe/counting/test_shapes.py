"""Meta tensors trace what fake tensors trace: every operator and every byte."""

import pytest
import torch
import torch.nn.functional as F

from tests.fake_tensors import fake_tensors
from tests.small import FAMILY_NAMES, small_model
from workbench.probe.counting.shapes import shapes_only
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported

ATTENTIONS = ("s_attn", "d_attn", "d_attn_full")


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_meta_equals_fake(family, attention, tmp_path):
    """Every pair of family, attention and kernel, not every three of them."""
    kernels = ["eager", "sdpa"]
    if (FAMILY_NAMES.index(family) + ATTENTIONS.index(attention)) % 2:
        kernels.reverse()
    cell = make_cell(
        model=small_model(family, tmp_path),
        attention=attention,
        kernel=kernels[0],
        scope="decoder",
        num_visual=33,
        num_text=9,
        checkpoint=attention != "d_attn_full",
        **{"pass": "train"},
    )
    try:
        quick = trace(cell)
    except Unsupported:
        assert kernels[0] == "sdpa"
        cell = cell.replace(kernel="eager")
        quick = trace(cell)
    slow = trace(cell, world=fake_tensors)
    assert quick.operators == slow.operators
    assert quick.timeline.peak()[0] == slow.timeline.peak()[0]
    assert (quick.flops, quick.flops_causal) == (slow.flops, slow.flops_causal)


def test_heads_that_do_not_fit_are_told_in_words():
    query, key = (torch.empty(1, heads, 4, 8, device="meta") for heads in (6, 4))
    with (
        shapes_only(),
        pytest.raises(ValueError, match="an attention of 6 heads has keys of 4: it needs as many"),
    ):
        F.scaled_dot_product_attention(query, key, key)
