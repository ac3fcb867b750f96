"""Streaming: what a row sees, a decode step by its places in the cache, and what it costs."""

import pytest
import torch

from tests.lvlm import oracle
from tests.lvlm.definitions import streaming
from tests.lvlm.test_oracles import relative, small_workload
from tests.small import FAMILY_NAMES, small_model
from workbench.lvlm.attention import system_of
from workbench.lvlm.build import build
from workbench.lvlm.kernels import KERNELS, Band
from workbench.lvlm.layout import Layout, causal_pairs
from workbench.lvlm.place import Place
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported

HEAD = 2 * 400 * 4096 * 32768
TABLE = {9_000: (177.5, 140.2), 74_000: (3940.6, 1117.5), 1_000_000: (538_672, 15_039)}


def cell_of(folder, family="mistral", **fields):
    given = {"kernel": "eager", "dtype": "float64", "num_visual": 33, "num_text": 9}
    given |= {"settings": streaming.SETTINGS, "attention": "streaming", "batch": 2, **fields}
    return make_cell(model=small_model(family, folder), **given)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("settings", ["sinks=20,window=22", "sinks=0,window=42", None])
def test_all_in_sight_is_s_attn(kernel, settings, tmp_path):
    cell = cell_of(tmp_path, kernel=kernel, settings=settings)
    ours, plain = build(cell), build(cell.replace(attention="s_attn", settings=None))
    plain.module.load_state_dict(ours.module.state_dict())
    with torch.no_grad():
        (found,), (wanted,) = ours.module(*ours.inputs), plain.module(*ours.inputs)
    assert torch.equal(found, wanted)
    assert trace(cell).operators == trace(plain.cell).operators


def test_flex_skips_what_is_hidden(tmp_path):
    settings = "sinks=130,window=40"
    cell = cell_of(tmp_path, kernel="flex", num_visual=300, dtype="float32", settings=settings)
    found, wanted = build(cell), build(cell.replace(kernel="sdpa"))
    wanted.module.load_state_dict(found.module.state_dict())
    with torch.no_grad():
        (ours,), (theirs,) = found.module(*found.inputs), wanted.module(*found.inputs)
    assert relative(ours, theirs) <= 1e-5
    assert trace(cell).flops_skipped == trace(cell).flops - trace(cell).flops_causal


BANDS = ["sinks=3,window=7", "sinks=0,window=5", "sinks=9,window=4", "sinks=2,window=1"]


@pytest.mark.parametrize("pattern", ["V,T", "T,V,T", "V,T,V,T"])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("settings", BANDS)
@pytest.mark.parametrize("visual", [33, 34, 0])
def test_a_band_is_the_masked_layer(visual, settings, kernel, pattern, tmp_path):
    """Outputs, gradients and pairs that are counted, at whole chunks and with a rest."""
    given = {"num_visual": visual, "layout": pattern, "pass": "train"}
    given |= {"num_text": 21 if visual else 30}
    # transformers' eager layer rounds its softmax to float32.
    masked = build(cell_of(tmp_path, settings=settings, kernel="sdpa", **given))
    cell = masked.cell.replace(settings=f"{settings},banded=1", kernel=kernel)
    banded = build(cell)
    banded.module.load_state_dict(masked.module.state_dict())
    for workload in (masked, banded):
        oracle.widen_norms(workload.module)
    inputs = [x.detach().requires_grad_() for x in masked.inputs]
    results = []
    for workload in (masked, banded):
        out = torch.cat([o.flatten() for o in workload.module(*inputs)])
        weights = [p for p in workload.module.parameters() if p.requires_grad]
        results.append((out, *torch.autograd.grad(out.square().sum(), [*inputs, *weights])))
    for ours, theirs in zip(*results, strict=True):
        assert relative(ours, theirs) <= 1e-9
    system, place = system_of(cell), Place(0, Layout(visual, given["num_text"], pattern))
    pairs = system.pairs(place, None)
    assert pairs.allowed == system_of(masked.cell).pairs(place, None).allowed <= pairs.dense
    assert pairs.dense <= place.layout.length * (2 * system.window + system.sinks)
    found, plain = trace(cell), trace(masked.cell)
    assert found.model_flops_causal == plain.model_flops_causal <= found.flops < plain.flops


def test_a_band_at_74_000_tokens_computes_a_thirtieth_of_the_pairs():
    cell = make_cell(attention="streaming", kernel="sdpa", num_visual=74_000, num_text=400)
    banded = cell.replace(settings="sinks=4,window=2048,banded=1")
    pairs = [system_of(c).pairs(Place(0, Layout(74_000, 400)), None) for c in (cell, banded)]
    assert 0.05 < pairs[1].dense / pairs[0].dense < 0.06
    masked, found = (predict(c, "h100-80gb", "none").metrics for c in (cell, banded))
    difference = 4 * 4096 * (pairs[0].dense - pairs[1].dense)
    assert masked["flops"] - found["flops"] == difference
    assert found["peak_bytes"] < masked["peak_bytes"]


def test_a_band_that_cannot_be_is_refused(tmp_path):
    settings = f"{streaming.SETTINGS},banded=1"
    for kernel, fields in (("flex", {"dtype": "float32"}), ("flash", {"dtype": "bfloat16"})):
        with pytest.raises(Unsupported, match=r"banded=1 is for kernels|streaming needs a mask"):
            trace(cell_of(tmp_path, kernel=kernel, settings=settings, **fields))
    with pytest.raises(Unsupported, match="banded=1 has no place for the sliding window of gemma"):
        trace(cell_of(tmp_path, "gemma2", settings=settings, layer=0))


@pytest.mark.parametrize("window", [None, 5, 30])
@pytest.mark.parametrize(("recent", "sinks"), [(100, 4), (140, 200), (1, 0), (300, 129)])
def test_blocks_of_flex_are_those_of_the_mask(window, recent, sinks):
    tokens = 391
    like = torch.empty(0, dtype=torch.float64)
    mask = KERNELS["flex"].mask(tokens, window, like, Band(recent, sinks))
    at = torch.arange(tokens)
    seen = (at[:, None] >= at) & ((at[:, None] - at < recent) | (at < sinks))
    seen &= at[:, None] - at < (window or tokens)
    assert torch.equal(KERNELS["sdpa"].mask(tokens, window, like, Band(recent, sinks))[0, 0], seen)
    padded = torch.zeros(512, 512, dtype=torch.bool)
    padded[:tokens, :tokens] = seen
    blocks = padded.unflatten(0, (4, 128)).unflatten(2, (4, 128)).transpose(1, 2).flatten(2)
    partial, full = (torch.zeros(4, 4, dtype=torch.bool) for _ in range(2))
    for table, count, which in (
        (partial, mask.kv_num_blocks, mask.kv_indices),
        (full, mask.full_kv_num_blocks, mask.full_kv_indices),
    ):
        for row in range(4):
            table[row, which[0, 0, row, : count[0, 0, row]]] = True
    assert not (full & ~blocks.all(2)).any()
    assert not (blocks.any(2) & ~(partial | full)).any()


def step_by_definition(parts, token, keys, values, rope):
    """One row over a cache, every key rotated at its place in it, float64."""
    x = parts.input_norm(token)
    k, v = torch.cat((keys, parts.key(x)), 2), torch.cat((values, parts.value(x)), 2)
    cos, sin = rope
    k, q = parts.rope(k, cos, sin), parts.rope(parts.query(x), cos[..., -1:, :], sin[..., -1:, :])
    k, v = (y.repeat_interleave(parts.num_heads // parts.num_kv_heads, 1) for y in (k, v))
    scores = q @ k.mT * parts.scale
    if parts.softcap is not None:
        scores = parts.softcap * torch.tanh(scores / parts.softcap)
    return parts.finish(token, parts.output(torch.softmax(scores, -1) @ v), x)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_step_goes_by_places_in_its_cache(family, layer, tmp_path):
    cell = cell_of(tmp_path, family, layer=layer, **{"pass": "decode"})
    workload = build(cell)
    oracle.widen_norms(workload.module)
    module, (parts, _, _) = workload.module, workload.layers[0]
    # Of the sinks, Gemma's local layers (16 tokens) see none any more.
    sinks = streaming.SINKS if parts.window is None else 0
    assert module.keys.shape[2] == sinks + streaming.WINDOW - 1
    count = module.keys.shape[2]
    longer = build(cell.replace(num_visual=0, num_text=count, settings=None))
    rope = longer.context.rope(longer.layers[0][1].index, "sequence")
    last = longer.context.rope(longer.layers[0][1].index, "next")
    tables = tuple(torch.cat(pair, -2) for pair in zip(rope, last, strict=True))
    with torch.no_grad():
        (found,) = workload.run_forward()
        wanted = step_by_definition(parts, workload.inputs[0], module.keys, module.values, tables)
    assert relative(found, wanted) <= 1e-9


@pytest.mark.parametrize("pattern", ["V,T", "T,V,T", "V,T,V,T"])
@pytest.mark.parametrize("window", [None, 1, 5, 30])
def test_what_is_cached_is_what_the_next_token_sees(pattern, window):
    for settings in ("sinks=3,window=7", "sinks=20,window=4", "sinks=0,window=1"):
        cell = make_cell(attention="streaming", num_visual=9, settings=settings)
        system, layout = system_of(cell), Layout(9, 8, pattern)
        sinks, recent = system.sinks, system.window
        end = layout.length
        found = system.cached(Place(0, layout), window)
        for visual, count in ((True, found.visual), (False, found.text)):
            seen = [
                p
                for p in layout.positions(visual).tolist()
                if (p < sinks or end - p < recent) and end - p < (window or end + 1)
            ]
            assert count == len(seen)


def test_the_page_s_closed_form():
    system = system_of(make_cell(attention="streaming", num_visual=9))
    for n in (5, 2052, 2053, 9_400):
        w = min(n, 2052)
        pairs = system.pairs(Place(0, Layout(n - 1, 1)), None)
        assert pairs.allowed == causal_pairs(w) + max(0, n - 2052) * 2052
        assert pairs.dense == n * n


@pytest.mark.parametrize("visual", TABLE)
def test_mistral_s_layers(visual):
    cell = make_cell(
        attention="streaming",
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


def test_a_step_costs_the_same_at_any_length():
    cells = [
        make_cell(attention="streaming", scope="decoder", num_visual=visual, **{"pass": "decode"})
        for visual in (5_000, 500_000)
    ]
    short, long = (trace(cell) for cell in cells)
    assert short.flops == long.flops
    assert short.kv_cache_bytes == long.kv_cache_bytes == 32 * 2051 * 4096
    assert short.operators == long.operators


@pytest.mark.parametrize("kernel", ["flash", "cudnn", "flash_attention_2"])
def test_kernels_without_masks_are_refused(kernel, tmp_path):
    with pytest.raises(Unsupported, match=f"streaming needs a mask .*{kernel}"):
        trace(cell_of(tmp_path, kernel=kernel, dtype="bfloat16"))


def test_tiled_is_exact(monkeypatch, tmp_path):
    monkeypatch.setattr("workbench.lvlm.attention.s_attn.TILE", 8)
    plain = small_workload("mistral", tmp_path, "streaming", "sdpa")
    tiled = build(plain.cell.replace(tiled=True))
    tiled.module.load_state_dict(
        {name.replace("mlp.", "mlp.inner."): x for name, x in plain.module.state_dict().items()}
    )
    oracle.widen_norms(tiled.module)
    with torch.no_grad():
        (found,), (wanted,) = tiled.module(*plain.inputs), plain.module(*plain.inputs)
    assert relative(found, wanted) <= 1e-9
