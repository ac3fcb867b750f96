"""Lightning attention: blocks of any size, the released module, and its place in the decoder."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tests.lvlm.definitions import lightning
from tests.lvlm.test_kinds import assert_composed
from tests.small import small_model
from workbench.lvlm.attention import lightning as system
from workbench.lvlm.attention.lightning import decay_rates, fused_sum
from workbench.lvlm.build import build
from workbench.lvlm.places import kinds_of, places_of
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported
from workbench.vocabulary.protocol import Protocol

TOLERANCE = 1e-9


def cell_of(folder, family="mistral", **fields):
    given = {"attention": "lightning", "kernel": "sdpa", "dtype": "float64", "num_visual": 33}
    given |= {"num_text": 9, "layer": 0, **fields}
    return make_cell(model=small_model(family, folder, num_hidden_layers=11), **given)


@pytest.mark.parametrize("block", [1, 5, 16, 42, 100])
def test_blocks_of_any_size_are_the_recurrence(block, tmp_path):
    workload = build(cell_of(tmp_path, settings=f"block={block}"))
    attention = workload.module.attention
    heads = attention.heads
    q, k, v = (torch.randn(2, heads, 42, 8, dtype=torch.float64) for _ in range(3))
    for x in (q, k, v):
        x.requires_grad_(True)
    found = attention.blocks(q, k, v)
    wanted = lightning.recurrence(q, k, v, lightning.rates(heads, 0, 11))
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=TOLERANCE)
    seed = torch.randn_like(found)
    ours = torch.autograd.grad(found, (q, k, v), seed)
    theirs = torch.autograd.grad(wanted, (q, k, v), seed)
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, atol=TOLERANCE, rtol=TOLERANCE)


def test_without_decay_it_is_causal_linear_attention(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "workbench.lvlm.attention.lightning.decay_rates", lambda heads, *_: [0.0] * heads
    )
    attention = build(cell_of(tmp_path, settings="block=5")).module.attention
    q, k, v = (torch.randn(1, attention.heads, 42, 8, dtype=torch.float64) for _ in range(3))
    wanted = torch.tril(q @ k.transpose(2, 3)) @ v
    torch.testing.assert_close(attention.blocks(q, k, v), wanted, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("index", [0, 3])
@pytest.mark.parametrize("tokens", [40, 300])
def test_it_is_minimaxs_released_module(index, tokens, tmp_path):
    """transformers computes in its own dtype and keeps its norm at float32."""
    from transformers import MiniMaxConfig
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    cell = cell_of(tmp_path, num_visual=tokens - 9, layer=index, settings="block=64")
    ours = build(cell).module.attention
    config = MiniMaxConfig(
        hidden_size=32,
        num_attention_heads=4,
        head_dim=8,
        num_hidden_layers=11,
        block_size=64,
        hidden_act="silu",
        rms_norm_eps=ours.own.out_norm.eps,
    )
    theirs = MiniMaxLightningAttention(config, layer_idx=index).double()
    with torch.no_grad():
        parts = [getattr(ours.own, f"{n}_proj").weight.unflatten(0, (4, 8)) for n in "qkv"]
        theirs.qkv_proj.weight.copy_(torch.cat(parts, 1).flatten(0, 1))
        theirs.output_gate.weight.copy_(ours.own.g_proj.weight)
        theirs.out_proj.weight.copy_(ours.own.o_proj.weight)
        theirs.norm.weight.copy_(ours.own.out_norm.weight)
    x = torch.randn(2, tokens, 32, dtype=torch.float64)
    with torch.no_grad():
        found, wanted = ours(x), theirs(x, position_embeddings=None, attention_mask=None)[0]
    assert (found - wanted).norm() / wanted.norm() < 1e-6


def test_roles_stand_where_the_paper_has_them(tmp_path):
    cell = cell_of(tmp_path, layer=None, scope="decoder", settings="every=4")
    roles = [place.role for place in places_of(cell)]
    assert [i for i, role in enumerate(roles) if role == "plain"] == [3, 7]
    assert len(set(kinds_of(cell))) == 2
    assert decay_rates(4, 0, 11)[0] == pytest.approx(2**-2 * (1 + 1e-5))
    assert decay_rates(4, 10, 11)[3] == pytest.approx(2**-8 * (1e-5 + 1e-6), rel=1e-2)


@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize("more", [{}, {"checkpoint": True}, {"tiled": True}])
def test_composed_is_the_whole(pass_, more, tmp_path):
    cell = cell_of(
        tmp_path,
        layer=None,
        scope="decoder",
        kernel="eager",
        dtype="float32",
        settings="every=2,block=16",
        **more,
        **{"pass": pass_},
    )
    whole = assert_composed(cell)
    if pass_ == "forward":
        assert whole.flops == whole.model_flops
        assert whole.flops_causal == whole.model_flops_causal
    elif not more:
        assert whole.model_flops == 3 * trace(cell.replace(**{"pass": "forward"})).flops


def test_a_step_costs_the_same_after_any_number_of_tokens(tmp_path):
    steps = [trace(cell_of(tmp_path, num_visual=size, **{"pass": "decode"})) for size in (0, 1000)]
    assert steps[0].flops == steps[1].flops
    assert steps[0].kv_cache_bytes == steps[1].kv_cache_bytes == 4 * 8 * 8 * 8


@pytest.mark.parametrize(
    ("family", "said"),
    [("gemma2", "soft-capping.*gemma2"), ("gemma3", "normed queries and keys.*gemma3")],
)
def test_what_it_has_no_scores_for(family, said, tmp_path):
    cell = cell_of(tmp_path, kernel="eager").replace(model=small_model(family, tmp_path))
    with pytest.raises(Unsupported, match=f"lightning has no scores.*{said}"):
        build(cell)


def test_it_is_measured(tmp_path):
    from workbench.probe.measuring.measure import measure

    cell = cell_of(tmp_path, layer=None, scope="decoder", dtype="float32", **{"pass": "train"})
    record = measure(cell, "cpu", Protocol(iterations=1))
    assert record.status == "ok"
    assert record.metrics["flops"] == trace(cell).flops
    assert record.details["forms"]["lightning"].startswith("plain blocks")


def test_without_a_gpu_the_plain_form_runs_and_is_named(tmp_path):
    workload = build(cell_of(tmp_path))
    form = workload.context.forms["lightning"]
    assert form.startswith("plain blocks")
    assert "needs a CUDA device" in form
    assert build(cell_of(tmp_path), "meta").context.forms == {}


def test_a_card_without_the_package_runs_the_plain_form(monkeypatch):
    context = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, forms={})
    monkeypatch.setattr(system, "find_spec", lambda name: None)
    assert fused_sum(context) is None
    assert "flash-linear-attention is not installed" in context.forms["lightning"]


def test_the_fused_form_is_asked_for_the_same_sum(tmp_path, monkeypatch):
    """Its published contract: [B, S, H, K], the log of each head's decay, a scale, a pair back."""

    def chunk_simple_gla(q, k, v, g=None, g_gamma=None, scale=None, **more):
        assert g is None
        assert g_gamma.dtype == torch.float32
        assert g_gamma.shape == (q.shape[2],)
        state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
        rows = []
        for t in range(q.shape[1]):
            state = state * g_gamma.exp()[:, None, None] + k[:, t, :, :, None] * v[:, t, :, None]
            rows.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t], state))
        return torch.stack(rows, 1), None

    package = ModuleType("fla.ops.simple_gla")
    package.chunk_simple_gla = chunk_simple_gla
    for name in ("fla", "fla.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "fla.ops.simple_gla", package)
    monkeypatch.setattr(system, "find_spec", lambda name: object())
    said = []
    card = SimpleNamespace(
        device=torch.device("cuda"), dtype=torch.float32, forms={}, flag=said.append
    )
    fused = fused_sum(card)
    assert fused is chunk_simple_gla
    assert card.forms["lightning"] == system.FUSED
    assert system.FUSED in said[0]
    torch.manual_seed(0)
    plain = build(cell_of(tmp_path, dtype="float64"))
    (attention,) = (m for m in plain.module.modules() if isinstance(m, system.LightningAttention))
    q, k, v = (torch.randn(2, 4, 42, 8, dtype=torch.float64) for _ in range(3))
    expected = attention.blocks(q, k, v)
    attention.fused = fused
    attention.log_decay = -torch.tensor(attention.rates)
    # The decay is float32 there, of which 42 tokens make a few units in the sixth place.
    torch.testing.assert_close(attention.blocks(q, k, v), expected, rtol=1e-5, atol=1e-4)
