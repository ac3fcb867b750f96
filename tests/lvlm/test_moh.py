"""Mixture of heads: gathered rows are the masked outputs of all heads, and cost what is active."""

from fractions import Fraction

import pytest
import torch

from tests.lvlm import oracle
from tests.lvlm.definitions import moh as definition
from tests.lvlm.test_oracles import relative
from tests.small import small_model
from workbench.lvlm.attention import moh as module
from workbench.lvlm.attention import system_of
from workbench.lvlm.build import build
from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.layout import Layout
from workbench.lvlm.place import Place
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported

HEAD = 2 * 400 * 4096 * 32768
TABLE = {9_000: (166.0, 148.6), 74_000: (3215.1, 2126.8), 1_000_000: (407_495, 210_730)}


def cell_of(folder, family="mistral", model=None, **fields):
    given = {"kernel": "sdpa", "dtype": "float64", "num_visual": 33, "num_text": 9, "batch": 2}
    given |= {"attention": "moh", **fields}
    return make_cell(model=model or small_model(family, folder), **given)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("rows", [1, 5, 16, 1000])
def test_tiles_of_any_size_agree(kernel, rows, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "ROWS", rows)
    workload = build(cell_of(tmp_path, kernel=kernel, **{"pass": "train"}))
    oracle.widen_norms(workload.module)
    (wanted,) = definition.outputs(workload)
    (found,) = workload.run_forward()
    with torch.no_grad():
        (again,) = workload.forward()
    assert relative(found, wanted) <= 1e-9
    assert relative(again, wanted) <= 1e-9


@pytest.mark.parametrize(
    ("active", "shared"), [(0.5, 0.5), (0.75, 0.0), (0.5, 0.25), (1.0, 0.5), (0.875, 0.125)]
)
def test_shares_of_the_heads(active, shared, tmp_path):
    """Shared heads that are no whole groups of those that share a key, none, or all."""
    model = small_model("mistral", tmp_path, num_attention_heads=8)
    cell = cell_of(tmp_path, model=model, settings={"active": active, "shared": shared})
    workload = build(cell)
    oracle.widen_norms(workload.module)
    ((parts, place, _),) = workload.layers
    seen = oracle.visibility(place.layout, None, diagonal=False)
    tables = workload.context.rope(place.index, "sequence")
    with torch.no_grad():
        (found,) = workload.run_forward()
        wanted = definition.layer(parts, workload.inputs[0], seen, tables, active, shared)
    assert relative(found, wanted) <= 1e-9
    traced = trace(cell)
    assert traced.flops == traced.model_flops
    assert traced.flops_causal == traced.model_flops_causal


@pytest.mark.parametrize("pass_", ["forward", "decode"])
def test_all_heads_are_s_attn(pass_, tmp_path):
    cell = cell_of(tmp_path, settings="active=1", **{"pass": pass_})
    ours, plain = build(cell), build(cell.replace(attention="s_attn", settings=None))
    plain.module.load_state_dict(ours.module.state_dict())
    for name, buffer in ours.module.named_buffers():
        plain.module.get_buffer(name).copy_(buffer)
    with torch.no_grad():
        (found,), (wanted,) = ours.module(*ours.inputs), plain.module(*ours.inputs)
    assert torch.equal(found, wanted)


def test_every_row_uses_its_heads(tmp_path):
    workload = build(cell_of(tmp_path))
    layer, raw = workload.module, torch.randn(2, 42, 4, 8, dtype=torch.float64)
    rows, counts = layer.choose(raw)
    assert sum(counts) == len(rows) == 2 * 42
    assert (rows.diff() > 0).all()
    assert torch.equal(torch.bincount(rows // 42, minlength=4), torch.tensor(counts))
    assert (torch.bincount(rows // (2 * 42)) == 42).all()
    tokens = rows % 42 + rows // 84 * 42
    assert torch.equal(tokens.sort().values, torch.arange(84))


@pytest.mark.parametrize("visual", TABLE)
def test_mistral_s_layers(visual):
    cell = make_cell(
        attention="moh",
        kernel="eager",
        scope="decoder",
        num_visual=visual,
        num_text=400,
        logits="text",
    )
    found = predict(cell, "h100-80gb", "none").metrics
    dense, causal = TABLE[visual]
    assert (found["flops"] - HEAD) / 1e12 == pytest.approx(dense, rel=2e-3)
    assert (found["flops_causal"] - HEAD) / 1e12 == pytest.approx(causal, rel=2e-3)


@pytest.mark.parametrize("pass_", ["forward", "train"])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_tiles_are_counted_whole(pass_, kernel, monkeypatch, tmp_path):
    """One tile that stands for all between: as much as every tile, traced."""
    cell = cell_of(tmp_path, kernel=kernel, num_visual=300, **{"pass": pass_})
    whole = trace(cell)
    monkeypatch.setattr(module, "ROWS", 16)
    tiled = trace(cell)
    assert (tiled.flops, tiled.flops_causal) == (whole.flops, whole.flops_causal)
    assert sum(tiled.operators.values()) > sum(whole.operators.values())


def test_what_a_fused_kernel_skips():
    """Routed heads, a third of those that are on, compute what their mask hides."""
    system = system_of(make_cell(attention="moh", num_visual=9))
    place = Place(0, Layout(9, 3))
    assert system.skipped_share(KERNELS["sdpa"], place, None) == Fraction(2, 3)
    assert system.skipped_share(KERNELS["sdpa"], place, 4) == 0
    assert system.skipped_share(KERNELS["eager"], place, None) == 0
    found = trace(make_cell(attention="moh", num_visual=900, num_text=100, dtype="bfloat16"))
    hidden = found.flops - found.flops_causal
    assert found.flops_skipped * 3 == hidden * 2


def test_a_step_costs_the_heads_that_are_on(tmp_path):
    fields = {"pass": "decode"}
    ours = trace(cell_of(tmp_path, **fields))
    plain = trace(cell_of(tmp_path, attention="s_attn", **fields))
    assert plain.flops - ours.flops == 2 * 43 * 4 * 8  # One of four heads, 2 samples, 43 keys.
    assert plain.kv_cache_bytes == ours.kv_cache_bytes


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"settings": "active=0.6"}, Unsupported, "active=0.6 of the 4 heads of mistral is 2.4"),
        ({"settings": "shared=0.3"}, Unsupported, "shared=0.3 of the 4 heads of mistral is 1.2"),
        ({"settings": "active=0.25"}, RequestError, "moh: shared=0.5 of active=0.25"),
        ({"compile": True}, RequestError, "compile: how many rows a head of moh has is data"),
        ({"kernel": "flash"}, Unsupported, "moh gathers rows .* kernel 'flash'"),
        ({"kernel": "flex"}, Unsupported, "moh gathers rows .* kernel 'flex'"),
    ],
)
def test_refused(fields, error, said, tmp_path):
    with pytest.raises(error, match=said):
        build(cell_of(tmp_path, **fields))
