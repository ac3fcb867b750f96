"""CMAI: what text loses by the map of the layer before, in a prefill and in a step."""

import pytest
import torch
from transformers import DynamicCache

from tests.lvlm import oracle
from tests.lvlm.definitions import cmai
from tests.lvlm.scaled import scaled_parts
from tests.lvlm.test_oracles import relative
from tests.small import small_model
from workbench.lvlm.build import build
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported


def cell_of(folder, family="mistral", layers=3, **fields):
    given = {"kernel": "eager", "dtype": "float64", "num_visual": 13, "num_text": 6, "batch": 2}
    given |= {"settings": cmai.SETTINGS, "attention": "cmai", "scope": "decoder", **fields}
    own = {"attention_chunk_size": 64} if family == "llama4" else {}
    model = small_model(family, folder, num_hidden_layers=layers, **own)
    return make_cell(model=model, **given)


@pytest.fixture
def wide_softmax(monkeypatch):
    """transformers' eager softmax is float32; here it keeps float64."""
    real = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, **_: real(x, dim=dim))


def by_definition(workload, inputs):
    """The logits, layer by layer."""
    visual, ids = inputs
    decoder, context = workload.module, workload.context
    layout = context.layout
    x, reach = layout.join(visual, decoder.embed_tokens(ids)), None
    lost = int(0.4 * layout.num_visual + 1e-9)
    for parts, place, _ in workload.layers:
        tables = context.rope(place.index, "sequence")
        x, weights = cmai.layer(parts, x, cmai.seen_by(layout, reach, lost), tables)
        reach = cmai.reach_of(weights, layout)
    return decoder.lm_head(decoder.norm(x))


@pytest.mark.usefixtures("wide_softmax")
@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen2_5_vl", "llama4"])
@pytest.mark.parametrize("layout", ["V,T", "T,V,T", "V,T,V,T"])
def test_forward_and_gradients(family, layout, tmp_path):
    layers = 4 if family == "llama4" else 3  # The fourth scales its queries.
    workload = scaled_parts(build(cell_of(tmp_path, family, layers, layout=layout)))
    oracle.widen_norms(workload.module)
    visual, ids = workload.inputs
    visual.requires_grad_()
    ours, theirs = workload.module(visual, ids), by_definition(workload, (visual, ids))
    assert relative(ours, theirs) <= 1e-9
    leaves = [visual, *workload.module.parameters()]
    seed = torch.randn_like(ours)
    ours, theirs = (
        torch.autograd.grad(y, leaves, seed, allow_unused=True) for y in (ours, theirs)
    )
    for got, want in zip(ours, theirs, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            assert (got - want).norm() <= 1e-9 * max(1.0, want.norm())


@pytest.mark.parametrize("fields", [{"settings": "inhibit=0"}, {"num_visual": 0}, {"layers": 1}])
def test_nothing_lost_is_s_attn(fields, tmp_path):
    cell = cell_of(tmp_path, **fields)
    plain = cell.replace(attention="s_attn", settings=None)
    assert trace(cell).operators == trace(plain).operators
    assert trace(cell).flops_causal == trace(plain).flops_causal


@pytest.mark.usefixtures("wide_softmax")
@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
def test_a_step_equals_the_last_row_of_the_prefill(layout, tmp_path):
    cell = cell_of(tmp_path, layout=layout, **{"pass": "forward"})
    prefilled = build(cell)
    decoded = build(cell.replace(num_text=5, **{"pass": "decode"}))
    decoded.module.load_state_dict(prefilled.module.state_dict())
    for workload in (prefilled, decoded):
        oracle.widen_norms(workload.module)
    caches, maps = [], []
    for layer in prefilled.module.layers:

        def with_cache(module, args, kwargs):
            caches.append(DynamicCache())
            return args, {**kwargs, "past_key_values": caches[-1]}

        layer.layer.register_forward_pre_hook(with_cache, with_kwargs=True)
        layer.layer.self_attn.register_forward_hook(lambda m, i, out: maps.append(out[1]))
    with torch.no_grad():
        (logits,) = prefilled.run_forward()
    whole, rows = prefilled.context.layout, slice(0, 5)
    text, visual = (whole.positions(kind) for kind in (False, True))
    for target, layer, cache, weights in zip(
        decoded.module.layers, prefilled.module.layers, caches, maps, strict=True
    ):
        held = cache.layers[layer.layer.self_attn.layer_idx]
        # The prefill's last row is the token that the step decodes.
        target.keys.copy_(held.keys[:, :, :-1])
        target.values.copy_(held.values[:, :, :-1])
        if target.maps is not None:
            target.to_visual.copy_(weights.mean(1)[:, text[rows]][:, :, visual])
    decoded.inputs[0].copy_(prefilled.inputs[1][:, -1:])
    with torch.no_grad():
        (found,) = decoded.run_forward()
    assert relative(found, logits[:, -1:]) <= 1e-9


@pytest.mark.parametrize(
    "fields",
    [
        {"pass": "forward"},
        {"pass": "train"},
        {"pass": "train", "checkpoint": True},
        {"pass": "decode"},
        {"pass": "forward", "reduce": "vmtc", "num_visual": 40},
    ],
)
def test_composed_is_whole_and_runs(fields, tmp_path):
    cell = cell_of(tmp_path, layers=6, dtype="float32", layout="T,V,T", **fields)
    found, whole = trace(cell), trace(cell, compose=False)
    assert found.flops == whole.flops
    assert found.flops_causal == whole.flops_causal
    assert found.params == whole.params
    assert found.bytes_moved == whole.bytes_moved
    assert found.operators == whole.operators
    assert found.timeline.peak()[0] == whole.timeline.peak()[0]
    if "checkpoint" not in fields:
        assert found.flops == found.model_flops
    build(cell).step()


def test_costs_more_than_s_attn(tmp_path):
    cell = cell_of(tmp_path, layers=4, batch=3)
    plain = trace(cell.replace(attention="s_attn", settings=None))
    found = trace(cell)
    assert found.flops - plain.flops == 3 * 3 * 2 * 6**2 * 13
    assert found.params == plain.params
    # 5 of 13 in each of 3 layers, for each text row: 4 heads of 8, 4 FLOPs a pair and element.
    assert plain.flops_causal + 3 * 3 * 2 * 6**2 * 13 - found.flops_causal == (
        3 * 3 * 6 * 5 * 4 * 4 * 8
    )


def test_refused(tmp_path):
    with pytest.raises(Unsupported, match=r"cmai needs explicit scores.*'sdpa'"):
        trace(cell_of(tmp_path, kernel="sdpa"))
    with pytest.raises(Unsupported, match=r"cmai hides visual tokens .*sliding window of gemma2"):
        trace(cell_of(tmp_path, "gemma2", num_visual=40))
    with pytest.raises(RequestError, match="cmai acts between layers"):
        trace(cell_of(tmp_path, scope="layer"))
