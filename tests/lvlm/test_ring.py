"""A sequence that ranks share by rows: real gloo processes against one, float64; what it costs.

Two launches serve all of it: each rank imports torch anew, and that takes seconds.
"""

import json

import pytest
import torch

from tests.probe.ranks.test_ranks import torchrun
from tests.small import small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.cell_check import check
from workbench.lvlm.layout import Layout
from workbench.lvlm.places import visual_unit
from workbench.lvlm.sharing import predicted_rank, shard
from workbench.lvlm.sharing.ring import blocks_of
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported

STEP = {"scope": "decoder", "pass": "train", "dtype": "float64"}
TWO = {"ring": 2, "world_size": 2, "num_visual": 33, "num_text": 15}
FOUR = {"ulysses": 2, "ring": 2, "world_size": 4, "num_visual": 25, "num_text": 15}
TEXT = sorted(name for name in SYSTEMS if SYSTEMS[name].ring == "text")
CASES = {
    "zigzag": {},
    "contiguous": {"ring_order": "contiguous"},
    "between": {"layout": "V,T,V,T", "logits": "text", "batch": 2},
    "checkpoint": {"checkpoint": True, "layout": "T,V,T"},
    "labels": {"loss_rows": "all", "tiled": True},
    "text alone": {"num_visual": 0, "num_text": 16},
    **{name: {"attention": name, "layout": "V,T,V,T", "batch": 2} for name in TEXT},
    "remainders": {"attention": "d_attn", "layout": "T,V,T", "checkpoint": True, "num_visual": 7},
    "chunks": {"attention": "d_attn", "chunk": 4, "fold": True, "logits": "text"},
    "latents": {"attention": "d_attn_biased", "family": "mistral4", "chunk": 4},
    "own experts": {"attention": "d_attn", "family": "ernie4_5_vl_moe", "dtype": "float32"},
    "norms behind RoPE": {"attention": "d_attn_biased", "family": "hunyuan_vl", "layout": "T,V,T"},
}
SMALL: dict[str, dict[str, int]] = {
    "mistral": {},
    "mistral4": {"first_k_dense_replace": 2},
    "ernie4_5_vl_moe": {},
    "hunyuan_vl": {},
}
"""Of each family: those in float64 have no experts, which do not compute in it."""
SQUARE = {
    "zigzag": {},
    "contiguous": {"ring_order": "contiguous", "checkpoint": True},
    "of four": {"ulysses": 1, "ring": 4},
    "d_attn of four": {"ulysses": 1, "ring": 4, "attention": "d_attn"},
}


def launch(folder, cases, common, ranks):
    models = {family: small_model(family, folder, **fields) for family, fields in SMALL.items()}
    cells = {}
    for name, more in cases.items():
        fields = {**STEP, **common, **more}
        cells[name] = {"model": models[fields.pop("family", "mistral")], **fields}
    asked, out = folder / "cells.json", folder / "out.json"
    asked.write_text(json.dumps(cells))
    ran = torchrun("tests.lvlm.shared_sequence", asked, out, ranks=ranks)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return {name: (cells[name], found) for name, found in json.loads(out.read_text()).items()}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("two"), CASES, TWO, 2)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("four"), SQUARE, FOUR, 4)


def holds(fields, ranks):
    """Ranks against one process, and the prediction against the rank that it is of."""
    tolerance = 1e-9 if fields["dtype"] == "float64" else 1e-4
    assert max(rank["worst"] for rank in ranks) < tolerance
    assert max(rank["loss"] for rank in ranks) < 1e-6  # It is float32.
    cell = make_cell(**fields)
    own, traced = ranks[predicted_rank(cell)], trace(cell)
    assert own["flops"] == traced.flops == max(rank["flops"] for rank in ranks)
    assert {rank["sent"] for rank in ranks} == {traced.ring_bytes}
    # Of some 350 kB: what is sent, 15 kB, stays until the other rank has taken it.
    assert own["peak"] == pytest.approx(traced.timeline.peak()[0], rel=0.1)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_are_one_process(two, name):
    holds(*two[name])


@pytest.mark.parametrize("name", SQUARE)
def test_four_ranks_are_one_process(four, name):
    holds(*four[name])


def cell_of(tmp_path, family="mistral", **fields):
    return make_cell(model=small_model(family, tmp_path), **{**STEP, **TWO, **fields})


@pytest.mark.parametrize("order", ["zigzag", "contiguous"])
@pytest.mark.parametrize(("ulysses", "ring"), [(1, 2), (2, 2), (3, 2), (1, 4), (2, 3)])
def test_shards_are_the_sequence_and_what_causality_allows(order, ulysses, ring, tmp_path):
    sizes = {"num_visual": 81, "num_text": 15, "world_size": ulysses * ring}
    cell = cell_of(
        tmp_path, layout="V,T,V,T", ulysses=ulysses, ring=ring, ring_order=order, **sizes
    )
    shards = [shard(cell, rank) for rank in range(cell.sharing)]
    whole = Layout.of(cell)
    visual = [own.positions(True) for own in shards]
    assert torch.cat(visual).sort().values.equal(whole.positions(True))
    assert torch.cat([own.sequence for own in shards]).sort().values.equal(torch.arange(96))
    for own in shards:
        assert own.length == 96 // cell.sharing
        assert own.rows(True).equal(
            torch.isin(own.sequence, whole.positions(True)).nonzero()[:, 0]
        )
        inside = [s for s in shards if s.ring == own.ring]
        rows = torch.cat([s.sequence for s in inside])
        allowed = int((rows[:, None] >= torch.arange(96)).sum())
        assert own.attended(None)[1] == allowed
        computed = 0
        for step, block in enumerate(blocks_of(*own.ring, len(rows), own.zigzag)):
            other = (own.ring[0] - step) % ring
            keys = torch.cat([s.sequence for s in shards if s.ring[0] == other])
            seen = rows[:, None] >= keys
            hidden = seen.clone()
            if block is not None:
                hidden[block.rows, block.keys] = False
                computed += rows[block.rows].numel() * keys[block.keys].numel()
                # All that is seen outside the causal step is seen whole.
                assert block.causal or bool(seen[block.rows, block.keys].all())
            assert not bool(hidden.any())
        assert own.attended(None)[0] == computed


def test_the_visual_tokens_of_a_decomposed_system_are_shared_segment_by_segment(tmp_path):
    cell = cell_of(tmp_path, attention="d_attn", layout="V,T,V,T", ring=4, world_size=4)
    shards = [shard(cell, rank) for rank in range(4)]
    assert [own.num_visual for own in shards] == [9, 8, 8, 8]
    assert [own.num_text for own in shards] == [15] * 4
    assert predicted_rank(cell) == 0


@pytest.mark.parametrize("size", [65_536, 1_048_576])
def test_what_a_decomposed_system_sends_does_not_grow_with_its_images(size):
    """The numbers of the paper's model, a layer's forward: Mistral 7B on 8 ranks, T = 400."""
    common = {"scope": "decoder", "pass": "train", "logits": "text", "num_text": 400}
    ranks = {"world_size": 8, "zero": 3}
    d_attn = make_cell(attention="d_attn", num_visual=size - 400, ring=8, **common, **ranks)
    wide, heads, rows, item = 4096, 32, 400, 2
    layer = 7 * rows * (wide * item + 4 * heads) + 2 * 7 * rows * wide * item // 8
    assert trace(d_attn).ring_bytes == 32 * layer
    assert round(7 * rows * (wide * item + 4 * heads) / 2**20) == 22
    s_attn = make_cell(num_visual=size - 400, ring=8, **common, **ranks)
    share = 2 * 1024 * size // 8
    assert trace(s_attn).ring_bytes == 32 * (2 * 7 * share * 2 + 8 * share * 4)
    if size == 1_048_576:
        assert 7 * share * 2 == 3584 * 2**20


def test_a_rank_of_a_zigzag_has_its_share_of_the_work(tmp_path):
    sizes = {"num_visual": 4081, "num_text": 15, "logits": "text", "dtype": "float32"}
    alone = trace(cell_of(tmp_path, ring=1, world_size=1, **sizes))
    shared = trace(cell_of(tmp_path, ring=4, world_size=4, **sizes))
    head = 3 * 2 * 32 * 97 * 15
    # Causality allows every rank the same; the one that is predicted has all text.
    hidden = alone.model_flops - alone.model_flops_causal
    assert 4 * (shared.model_flops_causal - head) == alone.model_flops_causal - head
    per_pair = 2 * 3 * 4 * 4 * 8
    assert hidden == per_pair * (4096**2 - 4096 * 4097 // 2)
    computed = 5 * 4096**2 // 32
    assert shared.model_flops - shared.model_flops_causal == per_pair * (
        computed - 4096 * 4097 // 8
    )
    assert shared.params == alone.params


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"num_text": 16}, RequestError, "49 tokens are no multiple of 2·ring = 4; give 48 or 52"),
        ({"attention": "fastv"}, RequestError, "fastv does not share a sequence by rows; use one"),
        ({"attention": "biformer"}, RequestError, "biformer does not share a sequence by rows"),
        ({"attention": "d_attn_full"}, RequestError, "d_attn_full does not share a sequence"),
        ({"kernel": "eager"}, RequestError, "kernel eager returns no log-sum-exp to merge by"),
        ({"pass": "decode"}, RequestError, "a train pass at scope decoder, not pass decode"),
        ({"scope": "layer"}, RequestError, "not pass train at scope layer"),
        ({"lora": "r=3", "dtype": "float32"}, RequestError, "without lora"),
        ({"compile": True}, RequestError, "not compiled"),
        ({"reduce": "pool"}, RequestError, "reduce pool: ring shares a sequence"),
        ({"family": "gemma2"}, Unsupported, "sliding window of 16 hides some of 48 tokens"),
        (
            {"family": "gemma2", "num_visual": 1, "attention": "d_attn"},
            RequestError,
            "every rank needs one in each segment of the layout; one has 1",
        ),
        (
            {"family": "gemma2", "num_visual": 6, "num_text": 6},
            Unsupported,
            "no fused kernel has its soft-cap",
        ),
        ({"attention": "d_attn", "ring_order": "contiguous"}, RequestError, "ring_order"),
        ({"attention": "himix", "ulysses": 2, "world_size": 4}, RequestError, "use ring alone"),
        ({"attention": "d_attn", "loss_rows": "all"}, RequestError, "its loss is of the text"),
        (
            {"ulysses": 3, "world_size": 6, "num_visual": 45},
            RequestError,
            "does not divide the 4 query heads",
        ),
    ],
)
def test_what_cannot_be_shared_is_said(fields, error, words, tmp_path):
    with pytest.raises(error, match=words):
        check(cell_of(tmp_path, **fields))


def test_every_system_that_cannot_is_refused_by_its_name(tmp_path):
    for name in sorted(SYSTEMS):
        cell = cell_of(tmp_path, attention=name, logits="text")
        if SYSTEMS[name].ring:
            check(cell)
        else:
            with pytest.raises(RequestError, match=f"ring 2: {name} does not share"):
                check(cell)


def test_ranks_of_a_ring_are_among_those_that_train(tmp_path):
    with pytest.raises(RequestError, match="ulysses 2 × ring 2: does not divide world_size 2"):
        cell_of(tmp_path, ulysses=2)
    with pytest.raises(RequestError, match="ring_order contiguous: needs a ring"):
        cell_of(tmp_path, ring=1, ring_order="contiguous")


def test_a_limit_is_searched_among_equal_shares(tmp_path):
    ring, heads = {"ulysses": 1, "ring": 3}, {"ulysses": 2, "ring": 1}
    for fields, unit in ((ring, 6), (heads, 2), ({"ulysses": 2, "ring": 2}, 8)):
        cell = cell_of(tmp_path, num_text=24, world_size=12, **fields)
        assert visual_unit(cell) == unit
    assert visual_unit(cell_of(tmp_path, num_text=24, attention="d_attn")) == 1
