"""What decomposed systems cost on Gemma 4's small models: caches, FLOPs, peaks, and refusals."""

import pytest
import torch

from tests.lvlm.definitions import definition, settings_of, step_settings_of
from tests.lvlm.test_decode import fill
from tests.lvlm.test_gemma4_small import FEW, LAYERS
from tests.lvlm.test_oracles import relative
from tests.lvlm.test_per_layer_systems import D_ATTN, FIELDS, OTHERS, cell_of, exact
from tests.small import small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.build import build
from workbench.lvlm.places import places_of
from workbench.probe.counting.allocator import CARD
from workbench.probe.counting.operators import KNOWN
from workbench.probe.counting.stretches import plan_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

KEEPING = [name for name in D_ATTN + OTHERS if SYSTEMS[name].keeps_cache]


def decoder_cell(folder, system, layers=FEW, **fields):
    return make_cell(
        model=small_model("gemma4", folder, **layers),
        attention=system,
        settings=settings_of(system),
        **{
            "scope": "decoder",
            "kernel": "eager",
            "dtype": "float32",
            "num_visual": 30,
            "num_text": 9,
            **fields,
        },
    )


def held(workload):
    return [t for kept in workload.context.caches for t in kept.tensors]


def test_full_is_the_released_model(tmp_path):
    """transformers' own layers, beside two streams of all their pairs."""
    full, plain = (
        exact(cell_of(tmp_path, name, scope="decoder", layout="T,V,T", kernel="eager"))
        for name in ("d_attn_full", "s_attn")
    )
    for one, other in zip(plain.module.parameters(), full.module.parameters(), strict=True):
        one.data.copy_(other.data)
    for (one, _, _), (other, _, _) in zip(plain.layers, full.layers, strict=True):
        one.layer.layer_scalar.copy_(other.layer.layer_scalar)
    visual, ids, _ = full.inputs
    with torch.no_grad():
        assert relative(plain.module(visual, ids), full.module(visual, ids)) <= 1e-5


def step_filled(decoded, prefilled):
    """Run a prefill and put its keys and values into the decode layers that have a cache."""
    if decoded.system.decomposed:
        return fill(decoded, prefilled, prefilled.run_forward)
    seen, handles = [], []
    for layer in prefilled.module.layers:
        handles.append(layer.register_forward_pre_hook(lambda _, state: seen.append(state[-1])))
    out = prefilled.run_forward()
    for handle in handles:
        handle.remove()
    defined = definition(decoded.system.name)
    layers = zip(decoded.module.layers, prefilled.module.layers, seen, strict=True)
    for target, layer, rows in layers:
        if hasattr(target.inner, "keys"):
            defined.fill(target.inner, layer.inner, rows[:, :-1])
    return out


@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
@pytest.mark.parametrize("system", D_ATTN + OTHERS)
def test_a_step_is_the_last_row_of_a_prefill(system, layout, tmp_path):
    """Over caches of the layers that have keys of their own alone."""
    fields = {"scope": "decoder", "layout": layout, "num_text": 10, "pass": "forward"}
    cell = cell_of(tmp_path, system, settings=step_settings_of(system), **fields)
    prefilled, decoded = exact(cell), exact(cell.replace(num_text=9, pass_="decode"))
    decoded.module.load_state_dict(prefilled.module.state_dict())
    for (one, _, _), (other, _, _) in zip(prefilled.layers, decoded.layers, strict=True):
        other.layer.layer_scalar.copy_(one.layer.layer_scalar)
    with torch.no_grad():
        (logits,) = step_filled(decoded, prefilled)
        decoded.inputs[0].copy_(prefilled.inputs[-1][:, -1:])
        (found,) = decoded.run_forward()
    # Places in a cache turn queries and keys by other angles, whose tables are in float32.
    assert relative(found, logits[:, -1:]) <= (1e-6 if system == "streaming" else 1e-9)


@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
@pytest.mark.parametrize("system", KEEPING)
def test_what_a_prefill_keeps_is_what_a_step_reads(system, layout, tmp_path):
    cell = decoder_cell(tmp_path, system, layout=layout, cache=True)
    workload = build(cell)
    workload.run_forward()
    step = build(cell.replace(cache=False, pass_="decode"))
    size = sum(
        t.untyped_storage().nbytes() for t in {t.data_ptr(): t for t in held(workload)}.values()
    )
    buffers = [b for layer in step.module.layers for b in layer.inner.buffers(recurse=False)]
    assert size == workload.kv_cache_bytes == step.kv_cache_bytes
    assert size == sum(b.nbytes for b in buffers)


@pytest.mark.parametrize("pass_", ["forward", "train", "decode"])
@pytest.mark.parametrize("system", D_ATTN + OTHERS)
def test_closed_form_is_the_count_and_layers_repeat(system, pass_, tmp_path):
    layers = {**LAYERS, **FIELDS.get(system, {})}
    cell = decoder_cell(tmp_path, system, layers, layout="T,V,T", **{"pass": pass_})
    composed, whole = trace(cell), trace(cell, compose=False)
    if system not in ("hyper_attn", "lsda"):  # Of whose layers not all do the same.
        assert [(s.unit, s.count) for s in plan_of(cell)] == [(1, 4), (1, 5)]
    assert composed.flops == whole.flops == whole.model_flops
    assert composed.flops_causal == whole.flops_causal == whole.model_flops_causal
    assert composed.params == whole.params
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]


@pytest.mark.parametrize("layers", [{"num_hidden_layers": 4}, LAYERS], ids=["own", "shared"])
def test_pairs_of_rows_that_nothing_reads_have_no_backward(layers, tmp_path):
    """Counted by what each layer hides: windows and heads differ, and so do their backwards."""
    cell = decoder_cell(tmp_path, "d_attn_full", layers, layout="T,V,T", logits="text")
    forward = trace(cell, compose=False)
    every, few = (
        trace(cell.replace(pass_="train", logits=rows), compose=False) for rows in ("all", "text")
    )
    hidden = forward.flops - forward.flops_causal
    assert every.flops - every.flops_causal == 3 * hidden
    workload, lacking = build(cell), 0
    last = max(place.index for parts, place, _ in workload.layers if not parts.takes_keys)
    for parts, place, _ in workload.layers[last:]:
        branches = workload.system.pairs_by_branch(place, parts.window)
        pairs = sum(branches[name].dense - branches[name].allowed for name in ("V2V", "V2T"))
        lacking += 2 * workload.system.per_pair(parts, place) * pairs
    assert few.flops - few.flops_causal == 3 * hidden - lacking
    composed = trace(cell.replace(pass_="train"))
    assert (composed.flops, composed.flops_causal) == (few.flops, few.flops_causal)


OPTIONS = [
    {"chunk": 8},
    {"fold": True},
    {"skip_last": True, "logits": "text"},
    {"skip_last": True, "logits": "text", "fold": True, "chunk": 8},
]


@pytest.mark.parametrize("fields", OPTIONS)
@pytest.mark.parametrize("system", ["d_attn", "d_attn_biased", "d_attn_cascade"])
def test_closed_form_under_options(system, fields, tmp_path):
    cell = decoder_cell(tmp_path, system, LAYERS, **fields)
    for pass_ in ("forward", "train"):
        composed = trace(cell.replace(pass_=pass_))
        whole = trace(cell.replace(pass_=pass_), compose=False)
        assert composed.flops == whole.flops
        assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
        if pass_ == "forward" or not cell.chunk:
            assert whole.flops == whole.model_flops


@pytest.mark.parametrize(
    "fields",
    [{"checkpoint": True}, {"checkpoint": True, "offload": True}, {"lora": "r=2"}, {"chunk": 8}],
)
def test_what_training_adds_is_composed_as_it_is(fields, tmp_path):
    cell = decoder_cell(tmp_path, "d_attn", LAYERS, **{"pass": "train", **fields})
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.flops == whole.flops
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert composed.offload_bytes == whole.offload_bytes


@pytest.mark.parametrize("system", ["d_attn", "d_attn_sum", "d_attn_cascade"])
def test_skipping_visual_rows_that_feed_nothing_is_exact(system, tmp_path):
    """All of the layers that take keys: with a loss of text alone no gradient passes there."""
    cell = cell_of(tmp_path, system, scope="decoder", logits="text")
    every, fewer = exact(cell), exact(cell.replace(skip_last=True))
    idle = [place.index for place in places_of(fewer.cell) if place.keys_only]
    assert idle == ([7] if system == "d_attn_cascade" else [4, 5, 6, 7])
    fewer.module.load_state_dict(every.module.state_dict())
    for (one, _, _), (other, _, _) in zip(every.layers, fewer.layers, strict=True):
        other.layer.layer_scalar.copy_(one.layer.layer_scalar)
    gradients = []
    for workload in (every, fewer):
        visual, ids, targets = every.inputs
        loss = workload.module(visual, ids, targets)
        leaves = [visual, *workload.module.parameters()]
        gradients.append(torch.autograd.grad(loss, leaves, allow_unused=True))
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pass_", ["train", "decode"])
def test_its_operators_were_gone_through(pass_, tmp_path):
    cell = decoder_cell(tmp_path, "d_attn", **{"pass": pass_})
    traced = trace(cell, CARD, compose=False)
    assert {op.name for op in traced.operators} <= KNOWN
    assert traced.flops == traced.model_flops


@pytest.mark.parametrize(
    "fields",
    [
        {"cache": True, "kernel": "sdpa", "batch": 2},
        {"pass": "decode"},
        {"pass": "train"},
        {"pass": "train", "checkpoint": True, "chunk": 8, "num_visual": 300},
        {"pass": "train", "scope": "layer", "layer": 3},
    ],
)
@pytest.mark.parametrize(
    "system",
    ["d_attn", *(pytest.param(s, marks=pytest.mark.slow) for s in ("d_attn_biased", "saisa"))],
)
def test_predicted_is_measured(system, fields, tmp_path):
    wide = {**FEW, "sliding_window": 64} if fields.get("kernel") == "sdpa" else FEW
    cell = decoder_cell(tmp_path, system, wide, **{"num_text": 6, **fields})
    composed, whole = trace(cell), trace(cell, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    measured = measure(cell, "cpu", Protocol(min_samples=1, precision=None))
    predicted = predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK, measured.error
    for metric in ("flops", "flops_causal", "params", "kv_cache_bytes"):
        assert measured.metrics.get(metric) == predicted.metrics.get(metric)
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    assert ratio == pytest.approx(1, abs=0.002)


def test_a_cache_holds_no_more_than_what_is_not_shared():
    """Of 35 layers the first 15: all visual tokens in each, for these have no distance."""
    cell = make_cell(
        model="gemma-4-e2b", attention="d_attn", scope="decoder", num_visual=8192, num_text=600
    )
    record = predict(cell.replace(pass_="decode", kernel="eager"), "h100-80gb")
    local, wide = 2 * 256 * (8192 + 511), 2 * 512 * (8192 + 600)
    assert record.metrics["kv_cache_bytes"] == 2 * (12 * local + 3 * wide)


@pytest.mark.parametrize("name", ["gemma-4-e2b", "gemma-4-e4b"])
@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - {"s_attn", *D_ATTN, *OTHERS}))
def test_systems_without_a_place_say_what_they_lack(system, name):
    cell = make_cell(model=name, attention=system, scope="decoder", num_visual=64)
    count = 20 if name == "gemma-4-e2b" else 18
    with pytest.raises(Unsupported) as refusal:
        build(cell, "meta")
    message = str(refusal.value)
    assert message.startswith(
        f"{system}: ids of gemma4_text have an embedding for every layer "
        f"(hidden_size_per_layer_input 256), and its last {count} layers take keys and values of "
        f"others; {SYSTEMS[system].lacks}; use s_attn"
    )
    assert "\n" not in message


def test_a_window_that_hides_visual_keys_is_refused():
    """As of any family with windows."""
    cell = make_cell(
        model="gemma-4-e2b", attention="lsda", kernel="eager", scope="decoder", num_visual=700
    )
    with pytest.raises(Unsupported, match="window of gemma4_text"):
        build(cell, "meta")


@pytest.mark.parametrize("field", ["ulysses", "ring"])
def test_ranks_do_not_share_its_visual_tokens(field):
    own = {"kernel": "flash"} if field == "ring" else {}
    cell = make_cell(
        model="gemma-4-e4b",
        attention="d_attn",
        scope="decoder",
        num_visual=64,
        world_size=2,
        **{field: 2},
        **own,
    )
    with pytest.raises((RequestError, Unsupported), match=f"{field} 2: layers of gemma-4-e4b"):
        build(cell, "meta")
