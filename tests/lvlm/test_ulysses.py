"""Sharing a sequence: shards, what is refused, what is predicted; tiles against deepspeed's own.

Two real ranks are in tests/probe/ranks/test_ranks.py.
"""

import pytest
import torch

from tests.small import small_model
from workbench.lvlm.build import build
from workbench.lvlm.cell_check import check
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import resolve
from workbench.lvlm.parts.chunked import Tiled
from workbench.lvlm.sharing import shard
from workbench.lvlm.sharing.ulysses import all_to_all_bytes
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

STEP = {"scope": "decoder", "pass": "train", "dtype": "float32"}


def cell_of(tmp_path, family="mistral", **fields):
    sizes = {"num_visual": 33, "num_text": 15, "world_size": 2, "ulysses": 2}
    return make_cell(model=small_model(family, tmp_path), **{**STEP, **sizes, **fields})


@pytest.mark.parametrize("layout", ["V,T", "T,V,T", "V,T,V,T"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_shards_put_together_are_the_sequence(layout, count, tmp_path):
    cell = cell_of(tmp_path, layout=layout, ulysses=count, world_size=4)
    whole = Layout.of(cell)
    visual, text = torch.arange(33)[None, :, None], 100 + torch.arange(15)[None, :, None]
    rows, seen = [], [0, 0]
    for rank in range(count):
        own = shard(cell, rank)
        assert own.length == 48 // count
        places = [own.positions(visual=kind) for kind in (True, False)]
        assert [len(p) for p in places] == [own.num_visual, own.num_text]
        streams = [
            stream[:, start : start + n]
            for stream, start, n in zip(
                (visual, text), seen, (own.num_visual, own.num_text), strict=True
            )
        ]
        rows.append(own.join(*streams))
        seen = [seen[0] + own.num_visual, seen[1] + own.num_text]
    assert torch.equal(torch.cat(rows, 1), whole.join(visual, text))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ulysses": 3, "world_size": 3}, "does not divide the 4 query heads and 2 key/value"),
        ({"num_text": 14}, "47 tokens are no 2 equal shares; give 46 or 48"),
        ({"attention": "d_attn"}, "d_attn does not share a sequence"),
        ({"kernel": "eager"}, "kernel eager has a mask"),
        ({"pass": "forward"}, "train pass at scope decoder"),
        ({"family": "gemma2", "kernel": "sdpa"}, "sliding window"),
    ],
)
def test_what_cannot_be_shared_is_said(fields, words, tmp_path):
    with pytest.raises(RequestError, match=words):
        check(cell_of(tmp_path, **fields))


def test_ranks_that_share_are_among_those_that_train(tmp_path):
    with pytest.raises(RequestError, match="ulysses 2: does not divide world_size 3"):
        cell_of(tmp_path, world_size=3)


def test_a_rank_has_its_share_of_the_work(tmp_path):
    sizes = {"num_visual": 2033, "num_text": 15}
    alone, shared = (trace(cell_of(tmp_path, ulysses=n, logits="text", **sizes)) for n in (1, 2))
    # All text, and so the whole LM head, is on the last rank.
    head = 3 * 2 * 32 * 97 * 15
    assert 2 * (shared.model_flops - head) == alone.model_flops - head
    assert 2 * (shared.flops - head) == alone.flops - head
    assert shared.params == alone.params
    assert alone.all_to_all_bytes is None
    # Per layer: q and the output of 4 heads, k and v of 2, K 8, float32, half of it to the other.
    once = 1024 * (4 + 4 + 2 + 2) * 8 * 4 // 2
    assert shared.all_to_all_bytes == 2 * 2 * once
    checkpointed = cell_of(tmp_path, checkpoint=True, **sizes)
    assert all_to_all_bytes(checkpointed, 4) == 3 * 2 * once


def test_a_rank_is_shown_its_own_visual_rows(tmp_path):
    """A prediction is of the rank with the most text, which begins after 24 of 33."""
    workload = build(cell_of(tmp_path), "meta")
    visual, ids, _ = workload.inputs
    assert (visual.shape[1], ids.shape[1]) == (9, 15)


def test_tiles_equal_those_of_deepspeed(tmp_path):
    from deepspeed.runtime.sequence_parallel.ulysses_sp import TiledMLP

    cell = make_cell(
        model=small_model("mistral", tmp_path), num_visual=33, num_text=15, dtype="float32"
    )
    mlp = build(cell).layers[0][0].mlp
    x = torch.randn(1, 48, resolve(cell.model).config.hidden_size)
    upstream = torch.randn_like(x)
    found = []
    for run in (
        Tiled(mlp, 16),
        lambda rows: TiledMLP.apply(lambda m, part: m(part), mlp, rows, 3, list(mlp.parameters())),
        mlp,
    ):
        mlp.zero_grad()
        rows = x.clone().requires_grad_()
        out = run(rows)
        out.backward(upstream)
        found.append([out.detach(), rows.grad, *(p.grad.clone() for p in mlp.parameters())])
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
