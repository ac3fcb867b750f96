"""What a card's operators take beside their outputs, and which of them are one kernel there."""

import pytest
import torch

from workbench.lvlm.kernels.scratch import MAX_OFFSET, repeated_gradients
from workbench.probe.counting.allocator import CARD, HOST
from workbench.probe.counting.card import card_operators, temporaries
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell

aten = torch.ops.aten


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_eager_training_has_the_float32_product_of_softmax_s_backward_on_a_card_alone():
    cell = make_cell(kernel="eager", num_visual=963, num_text=61, **{"pass": "train"})
    card, host = trace(cell, CARD), trace(cell, HOST)
    product = 32 * 1024**2 * 4
    made = [b.bytes for b in card.timeline.blocks if b.kind == "temporaries"]
    assert made == [product]
    assert not [b for b in host.timeline.blocks if b.kind == "temporaries"]
    assert card.flops == host.flops
    assert card.timeline.peak()[0] - host.timeline.peak()[0] == pytest.approx(product, rel=0.01)


def test_rms_norm_is_one_kernel_on_a_card_alone():
    cell = make_cell(attention="himix", num_visual=963, num_text=61, **{"pass": "train"})
    card, host = trace(cell, CARD), trace(cell, HOST)
    names = {op.name for op in card.operators}
    assert "workbench.fused_rms_norm" in names
    assert not any("rms_norm" in op.name for op in host.operators)
    assert card.timeline.peak()[0] < host.timeline.peak()[0]
    assert card.flops == host.flops


@pytest.mark.parametrize("trained", [True, False])
def test_the_fused_norm_has_the_shapes_of_torch_s_own(trained):
    x, w = (torch.randn(s, requires_grad=True) for s in ((3, 5, 8), (8,)))
    w.requires_grad_(trained)
    torch.nn.functional.rms_norm(x, (8,), w, 1e-6).sum().backward()
    with card_operators():
        mx = meta(3, 5, 8, dtype=torch.float32).requires_grad_()
        mw = meta(8, dtype=torch.float32).requires_grad_(trained)
        out = torch.nn.functional.rms_norm(mx, (8,), mw, 1e-6)
        out.backward(torch.empty_like(out))
    assert (out.shape, mx.grad.shape, mx.grad.dtype) == (x.shape, x.grad.shape, x.grad.dtype)
    assert (mw.grad is None) == (w.grad is None)
    assert not trained or mw.grad.shape == w.grad.shape


def test_float16_scores_are_widened_within_the_softmax():
    def widened(dtype):
        scores = meta(2, 4, 8, 8, dtype=dtype).requires_grad_()
        made = torch.nn.functional.softmax(scores, dim=-1, dtype=torch.float32)
        made.backward(torch.empty_like(made))
        return made.grad_fn.name(), scores.grad.dtype

    with card_operators():
        name, dtype = widened(torch.float16)
        assert (name, dtype) == ("SoftmaxBackward0", torch.float16)
        assert widened(torch.bfloat16)[1] == torch.bfloat16


def test_sums_beyond_32_bits_have_an_accumulator():
    rows = MAX_OFFSET // (1024 * 2)
    assert temporaries(aten.sum, (meta(rows, 1024), [1])) == ()
    assert temporaries(aten.sum, (meta(rows + 1, 1024), [1])) == (4 * (rows + 1),)
    assert temporaries(aten.sum, (meta(rows, 1024, dtype=torch.float32), [1])) == ()
    q = meta(1, 32, 400, 128)
    keys = MAX_OFFSET // (32 * 128 * 2)
    assert len(repeated_gradients(q, meta(1, 8, keys, 128))) == 2
    *each, accumulator = repeated_gradients(q, meta(1, 8, keys + 1, 128))
    assert each == [32 * (keys + 1) * 128 * 2] * 2
    assert accumulator == 4 * 8 * (keys + 1) * 128


def test_indexed_sums_and_long_texts_are_sorted():
    index = torch.empty(5, dtype=torch.int64, device="meta")
    alone = temporaries(aten.index_put, (meta(1, 9, 8), [None, index], meta(1, 5, 8), True))
    assert alone == (4 * 8 * 5,)
    several = temporaries(aten.index_put, (meta(2, 9, 8), [None, index], meta(2, 5, 8), True))
    assert several == (4 * 8 * 5 * 2, 2 * 9 * 8 * 2, 2 * 5 * 8 * 2)
    assert temporaries(aten.index_put, (meta(1, 9, 8), [None, index], meta(1, 5, 8))) == ()
    backward = aten.embedding_dense_backward
    few, many = (torch.empty(n, dtype=torch.int64, device="meta") for n in (3072, 3073))
    assert temporaries(backward, (meta(3072, 16), few)) == ()
    assert temporaries(backward, (meta(3073, 16), many)) == (4 * 8 * 3073, 4 * 3073 * 16)
