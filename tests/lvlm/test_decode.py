"""A decode step against the last row of the prefill, and what its cache holds."""

import pytest
import torch
from transformers import DynamicCache

from tests.lvlm import oracle
from tests.lvlm.definitions import assert_refused, definition, settings_of, step_settings_of
from tests.lvlm.test_oracles import open_gates, relative
from tests.small import FAMILY_NAMES, LAYER_SYSTEMS, small_model
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.per_layer_systems import LayerBeside
from workbench.lvlm.attention.s_attn import SAttnDecode, SAttnLayer
from workbench.lvlm.build import build
from workbench.probe.counting.allocator import CARD
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported

DECODE = {"pass": "decode"}
FORWARD = {"pass": "forward"}


class Recorder:
    """A kernel that keeps the branches it is given: the keys and values of a prefill."""

    def __init__(self, inner):
        self.inner, self.branches = inner, {}

    def own(self, branch, scores):
        self.branches["text"] = branch
        return self.inner.own(branch, scores)

    def cross(self, branch, prefixes, scores):
        self.branches["visual"] = branch
        return self.inner.cross(branch, prefixes, scores)

    def merged(self, own, other, prefixes, scores):
        self.branches.update(text=own, visual=other)
        return self.inner.merged(own, other, prefixes, scores)


def fill(decoded, prefilled, run):
    """Run a prefill and put its keys and values into the decode layers' caches."""
    decode_layers, layers = systems_layers(decoded), systems_layers(prefilled)
    if decoded.system.decomposed:
        for layer in layers:
            layer.kernel = Recorder(layer.kernel)
        out = run()
        for target, layer in zip(decode_layers, layers, strict=True):
            for stream, branch in layer.kernel.branches.items():
                # The prefill's text ends with the token that the step decodes.
                stop = -1 if stream == "text" else None
                for name, found in (("keys", branch.k), ("values", branch.v)):
                    held = getattr(target, f"{stream}_{name}", None)
                    count = 0 if held is None else held.shape[2]  # None where others' are taken.
                    if count:
                        held.copy_(found[:, :, :stop][:, :, -count:])
        return out
    handles = [layer.register_forward_pre_hook(remember) for layer in layers]
    out = run()
    for handle in handles:
        handle.remove()
    for target, layer in zip(decode_layers, layers, strict=True):
        if not isinstance(target, SAttnDecode):
            definition(decoded.system.name).fill(target, layer, layer.seen[:, :-1])
            continue
        cache = DynamicCache()
        layer.layer(
            layer.seen,
            attention_mask=layer.mask,
            position_embeddings=layer.tables,
            position_ids=layer.places,
            past_key_values=cache,
        )
        whole = cache.layers[layer.layer.self_attn.layer_idx]
        count = target.keys.shape[2]
        target.keys.copy_(whole.keys[:, :, :-1][:, :, -count:])
        target.values.copy_(whole.values[:, :, :-1][:, :, -count:])
    return out


def remember(layer, inputs):
    layer.seen, layer.inputs = inputs[-1], inputs


def systems_layers(workload):
    layers = getattr(workload.module, "layers", [workload.module])
    return [layer.inner if isinstance(layer, LayerBeside) else layer for layer in layers]


def pair(family, folder, system, kernel, **fields):
    """A prefill of 10 text tokens and a decode step after 9 of them, with the same weights."""
    cell = make_cell(
        model=small_model(family, folder),
        attention=system,
        kernel=kernel,
        **{
            "dtype": "float64",
            "settings": step_settings_of(system),
            "batch": 2,
            "num_visual": 33,
            "num_text": 10,
            **FORWARD,
            **fields,
        },
    )
    prefilled, decoded = build(cell), build(cell.replace(num_text=9, **DECODE))
    open_gates(prefilled.module)
    decoded.module.load_state_dict(prefilled.module.state_dict())
    for workload in (prefilled, decoded):
        oracle.widen_norms(workload.module)
    return prefilled, decoded


@pytest.mark.parametrize("family", ["mistral", "gemma2", "llama4"])
@pytest.mark.parametrize("system", LAYER_SYSTEMS)
@pytest.mark.parametrize(("layout", "visual"), [("V,T", 33), ("T,V,T", 33), ("V,T", 0)])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_step_equals_the_last_row_of_the_prefill(
    family, system, layout, visual, layer, tmp_path
):
    kernel = "sdpa" if family == "mistral" else "eager"
    if family == "llama4":
        layer *= 3  # One in chunks, and one without RoPE.
    fields = {"layout": layout, "num_visual": visual, "layer": layer}
    try:
        prefilled, decoded = pair(family, tmp_path, system, kernel, **fields)
    except Unsupported as error:
        assert_refused(error, system, family)
        return
    with torch.no_grad():
        outputs = fill(decoded, prefilled, prefilled.run_forward)
        decoded.inputs[0].copy_(prefilled.inputs[-1][:, -1:])
        (found,) = decoded.run_forward()
    # transformers' eager softmax is float32, in the prefill and in the step.
    layers = systems_layers(decoded)[0], systems_layers(prefilled)[0]
    real = any(isinstance(layer, (SAttnDecode, SAttnLayer)) for layer in layers)
    tolerance = 1e-5 if real and kernel == "eager" else 1e-9
    assert relative(found, outputs[-1][:, -1:]) <= tolerance


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_full", "himix", "gated_xattn"])
def test_a_whole_decoder_steps_like_its_prefill(family, system, tmp_path):
    try:
        prefilled, decoded = pair(family, tmp_path, system, "eager", scope="decoder")
    except Unsupported as error:
        assert_refused(error, system, family)
        return
    with torch.no_grad():
        (logits,) = fill(decoded, prefilled, prefilled.run_forward)
        decoded.inputs[0].copy_(prefilled.inputs[-1][:, -1:])
        (found,) = decoded.run_forward()
    assert relative(found, logits[:, -1:]) <= (1e-5 if system == "s_attn" else 1e-9)


@pytest.mark.parametrize("system", LAYER_SYSTEMS)
def test_a_step_leaves_its_cache_as_it_was(system, tmp_path):
    _, decoded = pair("mistral", tmp_path, system, "sdpa")
    before = [b.clone() for b in decoded.module.buffers()]
    (first,), (second,) = decoded.run_forward(), decoded.run_forward()
    assert torch.equal(first, second)
    after = list(decoded.module.buffers())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("family", ["mistral", "gemma2", "llama4"])
@pytest.mark.parametrize("system", sorted(SYSTEMS))
@pytest.mark.parametrize("scope", ["layer", "decoder"])
def test_costs_of_a_step(family, system, scope, tmp_path):
    if scope == "layer" and system not in LAYER_SYSTEMS:
        return
    cell = make_cell(
        model=small_model(family, tmp_path),
        attention=system,
        kernel="eager",
        dtype="float32",
        scope=scope,
        num_visual=33,
        num_text=9,
        batch=2,
        settings=settings_of(system),
        **DECODE,
    )
    try:
        found = trace(cell)
    except Unsupported as error:
        assert_refused(error, system, family)
        return
    assert found.flops == found.model_flops == found.flops_causal > 0
    held = sum(b.nbytes for b in build(cell).module.buffers())
    assert found.kv_cache_bytes == held == trace(cell.replace(**FORWARD)).kv_cache_bytes
    assert trace(cell.replace(**{"pass": "train"})).kv_cache_bytes is None


def test_the_cache_of_mistral():
    """2 × 8 heads × 128 × 2 bytes a token and layer: D-Attn does not shrink it."""
    for system in ("s_attn", "d_attn", "himix"):
        cell = make_cell(attention=system, scope="decoder", num_visual=1000, num_text=24, **DECODE)
        found = trace(cell)
        assert found.kv_cache_bytes == 32 * 1024 * 4096
        assert found.timeline.peak()[0] >= found.timeline.of_kind("weights") + found.kv_cache_bytes


def test_a_composed_decoder_counts_every_layers_cache(tmp_path):
    cell = make_cell(
        model=small_model("mistral", tmp_path, num_hidden_layers=6),
        scope="decoder",
        kernel="eager",
        num_visual=33,
        num_text=9,
        **DECODE,
    )
    composed, whole = trace(cell, CARD), trace(cell, CARD, compose=False)
    assert composed.timeline.peak()[0] == whole.timeline.peak()[0]
    assert composed.operators == whole.operators
    assert composed.kv_cache_bytes == whole.kv_cache_bytes


def test_options_of_the_visual_stream_are_refused():
    for option in ({"fold": True}, {"chunk": 8}, {"tiled": True}):
        with pytest.raises(RequestError, match="a decode step is one token"):
            build(make_cell(attention="d_attn", num_visual=9, **option, **DECODE))
